package main

import (
	"strings"
	"testing"
)

// Wrappers take the second word of the version, or the last one.
func TestVersion(t *testing.T) {
	w := newWorld(t)
	w.asDuplicity()
	for _, args := range []string{"--version", "-V", "--vers", "full --version", "--version --name x"} {
		if got := w.sh("duplicity " + args); got != "duplicity "+duplicityVersion+"\n" {
			t.Errorf("duplicity %s: %q", args, got)
		}
		if got := w.dupfs(strings.Fields(args)...); !strings.HasPrefix(got, "dupfs version ") {
			t.Errorf("dupfs %s: %q", args, got)
		}
	}
	w.want(2, "--name needs a value", nil, "--version", "--name")
	w.want(2, "no such command: --version", nil, "--", "--version")
}
