package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The limits of speed hold at each store.
func TestSpeedLimits(t *testing.T) {
	for i, s := range storesUnderTest(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			testSpeedLimits(t, s, fmt.Sprintf("limits-%d-%d", os.Getpid(), i))
		})
	}
}

func testSpeedLimits(t *testing.T, s storeUnderTest, name string) {
	w := newWorld(t)
	for _, v := range s.env {
		w.env = append(w.env, strings.Replace(v, "=/DIR", "="+w.dir, 1))
	}
	target := fmt.Sprintf(s.url, name)
	w.sh("mkdir src; head -c 3000000 /dev/urandom > src/file")
	// A second's worth may go at once.
	slow := func(args ...string) {
		t.Helper()
		began := time.Now()
		w.dupfs(append(args, s.opts...)...)
		if took := time.Since(began); took < 1500*time.Millisecond {
			t.Errorf("%v took only %v", args, took)
		}
	}
	slow("full", "--limit-upload", "1M", "src", target)
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	slow("restore", "--limit-download", "1024K", target, "out")
	w.sh("diff -r src out")
}

// Passwords are in no message, log, table or cache.
func TestSecretsAreMasked(t *testing.T) {
	w := newWorld(t)
	dav := upstream(t, strings.Replace(server(t, "WEBDAV"), "tester:testing@", "", 1)).Host
	sftp := server(t, "SFTP_HOST") + ":" + server(t, "SFTP_PORT")
	const secret = "s3cr3t-Passw0rd"
	w.write("src/file", "x")
	quick := []string{"--timeout", "3", "--num-retries", "2", "--backend-retry-delay", "0.1", "--verbosity", "debug"}
	azure := strings.Replace(azureEnv(t, "")[0], "AccountKey=", "AccountKey=c2VjcmV0LWtleS1zZWNyZXQta2V5", 1)
	tests := []struct {
		name, url string
		env       []string
		opts      []string
	}{
		{"webdav", "webdav://tester:" + secret + "@" + dav + "/masked", nil, nil},
		{"webdav, odd", "webdav://tester:/" + secret + "@" + dav + "/masked", nil, nil},
		{"webdav, nobody there", "webdav://tester:" + secret + "@127.0.0.1:1/masked", nil, nil},
		{"webdav, no such host", "webdavs://tester:" + secret + "@nowhere.invalid/masked", nil, nil},
		{"webdav, variable", "webdav://tester@" + dav + "/masked", []string{"FTP_PASSWORD=" + secret}, nil},
		{"sftp", "sftp://nobody:" + secret + "@" + sftp + "/masked", nil,
			[]string{"--ssh-options=-oUserKnownHostsFile=" + server(t, "SFTP_KNOWN_HOSTS")}},
		{"sftp, unknown host", "sftp://nobody:" + secret + "@" + sftp + "/masked", nil, nil},
		{"scheme", "xyz://user:" + secret + "@host/path", nil, nil},
		{"brackets", "webdav://user:" + secret + "@[::1/path", nil, nil},
		{"swift", "swift://masked", append(swiftEnv(t, ""), "SWIFT_PASSWORD="+secret, "ST_KEY="), nil},
		{"azure", "azure://masked", []string{azure}, nil},
		{"s3", "s3://masked", []string{"AWS_ACCESS_KEY_ID=testaccess", "AWS_SECRET_ACCESS_KEY=" + secret},
			[]string{"--s3-endpoint-url", server(t, "S3_ENDPOINT"), "--s3-region-name", "us-east-1"}},
		{"s3 in url", "s3://testaccess:" + secret + "@127.0.0.1:1/masked/x", []string{"AWS_EC2_METADATA_DISABLED=true"}, nil},
	}
	for _, tt := range tests {
		for _, args := range [][]string{{"src", tt.url}, {"collection-status", tt.url}, {"restore", tt.url, "out"}, {"mount", tt.url, "home"}} {
			r := w.exec(tt.env, binary, append(append(args, quick...), tt.opts...)...)
			said := r.stdout + r.stderr
			if strings.Contains(said, secret) || strings.Contains(said, "c2VjcmV0LWtleS1zZWNyZXQta2V5") {
				t.Errorf("%s: %s tells the secret:\n%s", tt.name, args[0], said)
			}
			if r.code == 0 || !strings.Contains(r.stderr, "dupfs: ") {
				t.Errorf("%s: %s: exit %d\n%s", tt.name, args[0], r.code, said)
			}
		}
	}
	testSecretOfMount(t, w, dav)
	if out := w.sh("grep -rlaF -e " + secret + " home tmp || true"); out != "" {
		t.Errorf("the secret is in files:\n%s", out)
	}
}

// testSecretOfMount looks for a right password where a mount could show it.
func testSecretOfMount(t *testing.T, w *world, dav string) {
	target := fmt.Sprintf("webdav://tester:testing@%s/masked-%d", dav, os.Getpid())
	out := w.dupfs("full", "-v9", "src", target) + w.dupfs("status", target) + w.dupfs("collection-status", target)
	dir, _ := w.mount(target)
	for where, text := range map[string]string{
		"the output":          out,
		"the table of mounts": w.sh("grep " + dir + " /proc/mounts"),
		"the caches":          w.sh("grep -rlaF tester:testing home || true"),
	} {
		if strings.Contains(text, "testing") || where == "the caches" && text != "" {
			t.Errorf("the password is in %s:\n%s", where, text)
		}
	}
}
