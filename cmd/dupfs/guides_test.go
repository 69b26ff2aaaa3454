package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// asDuplicity puts dupfs first in the PATH under duplicity's name.
func (w *world) asDuplicity() {
	w.t.Helper()
	w.sh("mkdir -p bin; ln -sf " + binary + " bin/duplicity")
	w.env = append(w.env, "PATH="+w.path("bin")+":"+os.Getenv("PATH"))
}

// rcFile is what OpenStack's dashboard lets users download.
const rcFile = `#!/usr/bin/env bash
unset OS_TENANT_ID
unset OS_TENANT_NAME
export OS_AUTH_URL=KEYSTONE/v3
export OS_PROJECT_NAME="demo"
export OS_USER_DOMAIN_NAME="Default"
if [ -z "$OS_USER_DOMAIN_NAME" ]; then unset OS_USER_DOMAIN_NAME; fi
export OS_PROJECT_DOMAIN_NAME="Default"
export OS_USERNAME="tester"
export OS_PASSWORD="testing"
export OS_REGION_NAME="RegionOne"
export OS_INTERFACE=public
export OS_IDENTITY_API_VERSION=3
`

// What guides for Swift tell users of duplicity to export.
const (
	swiftV3 = `export SWIFT_USERNAME=tester SWIFT_PASSWORD=testing
export SWIFT_AUTHURL=KEYSTONE/v3 SWIFT_AUTHVERSION=3 SWIFT_TENANTNAME=demo SWIFT_REGIONNAME=RegionOne
export SWIFT_USER_DOMAIN_NAME=Default SWIFT_PROJECT_DOMAIN_NAME=Default
`
	swiftV1 = `export SWIFT_USERNAME=test:tester
export SWIFT_PASSWORD=testing
export SWIFT_AUTHURL=TEMPAUTH
export SWIFT_AUTHVERSION=1
`
)

// swiftGuide is the script of the guide: with what it prints looked at by the
// test, and three years of nights in a minute by --current-time.
const swiftGuide = `#!/bin/bash
set -e
. ./credentials
export PASSPHRASE=secret
duplicity --full-if-older-than 1M --volsize 5 --current-time=$NOW "$PWD/data" swift://CONTAINER
`

// A script that backs up to Swift runs unchanged with dupfs for duplicity,
// with each kind of login.
func TestSwiftGuide(t *testing.T) {
	keystone, tempauth := server(t, "KEYSTONE_URL"), server(t, "SWIFT_AUTHURL")
	for name, credentials := range map[string]string{"RC file": rcFile, "version 3": swiftV3, "version 1": swiftV1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.asDuplicity()
			container := fmt.Sprintf("guide-%d-%s", os.Getpid(), strings.ReplaceAll(name, " ", ""))
			fill := strings.NewReplacer("KEYSTONE", keystone, "TEMPAUTH", tempauth, "CONTAINER", container)
			w.write("credentials", fill.Replace(credentials))
			w.write("backup.sh", fill.Replace(swiftGuide))
			testSwiftGuide(t, w, fill.Replace("swift://CONTAINER"))
		})
	}
}

func testSwiftGuide(t *testing.T, w *world, url string) {
	// Day 0 is a full backup, 3 an increment, 40 and 80 full ones, 83 not.
	for _, day := range []int{0, 3, 40, 80, 83} {
		w.write("data/letter.txt", fmt.Sprintf("day %d\n", day))
		w.sh("head -c 6000000 /dev/urandom > data/photo; NOW=" + at(day) + " bash backup.sh")
	}
	run := func(line string) string {
		return w.sh(". ./credentials; export PASSPHRASE=secret; " + strings.ReplaceAll(line, "URL", url))
	}
	status := run("duplicity collection-status URL")
	for _, want := range []string{
		"Found 2 secondary backup chains.", "Found primary backup chain with matching signature chain:",
		"Number of contained backup sets: 2", "No orphaned or incomplete backup sets found.",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("collection-status does not say %q:\n%s", want, status)
		}
	}
	run("duplicity restore --time " + at(5) + " URL out; duplicity restore --file-to-restore letter.txt --restore-time " + at(50) + " URL letter")
	run("duplicity --file-to-restore=letter.txt URL newest; duplicity verify URL data")
	if got := w.sh("cat out/letter.txt letter newest; cmp newest data/letter.txt"); got != "day 3\nday 40\nday 83\n" {
		t.Errorf("restored %q", got)
	}
	if out := run("duplicity remove-all-but-n-full 2 URL"); !strings.Contains(out, "Rerun command with --force option to actually delete.") {
		t.Errorf("without --force:\n%s", out)
	}
	run("duplicity remove-all-but-n-full 2 --force URL")
	if out := run("duplicity cleanup --force URL"); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("cleanup:\n%s", out)
	}
	if out := run("duplicity collection-status URL"); !strings.Contains(out, "Found 1 secondary backup chain.") {
		t.Errorf("after the removal:\n%s", out)
	}
	if out := run("duplicity list-current-files URL"); !strings.Contains(out, "letter.txt") {
		t.Errorf("list-current-files:\n%s", out)
	}
}

// nightly is a script as cron runs it.
const nightly = `#!/bin/sh
. "$HOME/.passphrase"
duplicity --verbosity info --azure-blob-tier Cool "$PWD/data" azure://CONTAINER
`

// A nightly script for Azure runs unchanged: volumes are Cool, everything else
// Hot. Verbosity is a word, options stand anywhere and are abbreviated.
func TestAzureGuide(t *testing.T) {
	w := newWorld(t)
	w.asDuplicity()
	w.env = append(w.env[:0:0], w.env...)
	for i, v := range w.env {
		if strings.HasPrefix(v, "PASSPHRASE=") {
			w.env = append(w.env[:i], w.env[i+1:]...)
			break
		}
	}
	container := fmt.Sprintf("nightly-%d", os.Getpid())
	url := "azure://" + container
	w.write("nightly.sh", strings.ReplaceAll(nightly, "CONTAINER", container))
	w.write("home/.passphrase", "export PASSPHRASE='a secret'\nexport "+strings.Replace(azureEnv(t, "")[0], "=", "='", 1)+"'\n")
	w.write("data/file", "one\n")
	if out := w.sh("sh nightly.sh 2>&1"); !strings.Contains(out, "--------------[ Backup Statistics ]--------------") {
		t.Errorf("no statistics:\n%s", out)
	}
	w.write("data/file", "two\n")
	w.sh("sleep 1; sh nightly.sh")
	run := func(line string) string {
		return w.sh(`. "$HOME/.passphrase"; ` + strings.ReplaceAll(line, "URL", url))
	}
	checkTiers(t, run("duplicity status --tiers URL"), "Cool")
	for _, line := range []string{
		"duplicity collection-status URL --verbosity warning",
		"duplicity -v debug col URL --num-ret 2",
		"duplicity --verb 9 list URL --azure-blob=Cool",
		"duplicity full --volsize=1 data --verbosity=i URL --asynchronous-upload --allow-source-mis --current-time 2000000000",
		"duplicity -vnotice remove-all-inc-of-but-n-full 1 URL --force",
		"duplicity URL out --verbosity error; test \"$(cat out/file)\" = two",
	} {
		run(line)
	}
}

// checkTiers looks at what status --tiers printed: volumes in one tier, and
// everything else Hot.
func checkTiers(t *testing.T, out, volumes string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Errorf("more than two kinds:\n%s", out)
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 || !(f[0] == volumes && f[1] == "volumes" || f[0] == "Hot" && f[1] == "metadata") {
			t.Errorf("volumes should be %s, all else Hot:\n%s", volumes, out)
		}
	}
}
