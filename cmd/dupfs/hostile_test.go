package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// hostile is an archive of one set that somebody made by hand: what its volume
// holds is no business of duplicity's.
func (w *world) hostile(members []tar.Header) {
	w.t.Helper()
	pack := func(kind func(name string) string) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, h := range members {
			body := ""
			h.Name, h.ModTime, h.Format = kind(h.Name), time.Unix(epoch, 0), tar.FormatGNU
			if h.Typeflag == tar.TypeReg && strings.HasPrefix(h.Name, "snapshot/") {
				body = "evil\n"
			}
			if h.Typeflag == tar.TypeReg && !strings.HasPrefix(h.Name, "snapshot/") {
				// a signature of no blocks of 512 bytes
				body = "rs\x016\x00\x00\x02\x00\x00\x00\x00\x08"
			}
			h.Size = int64(len(body))
			if err := tw.WriteHeader(&h); err != nil {
				w.t.Fatal(err)
			}
			if _, err := tw.Write([]byte(body)); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := tw.Close(); err != nil {
			w.t.Fatal(err)
		}
		return b.Bytes()
	}
	volume := pack(func(name string) string { return "snapshot/" + name })
	byName := map[string]byte{}
	for _, h := range members {
		byName["snapshot/"+h.Name] = h.Typeflag
	}
	sigtar := pack(func(name string) string {
		if byName["snapshot/"+name] == tar.TypeReg {
			return "signature/" + name
		}
		return "snapshot/" + name
	})
	manifest := fmt.Sprintf("Volume 1:\n    StartingPath   .  \n    EndingPath     zzz  \n    Hash SHA1 %x\n", sha1.Sum(volume))
	w.sh("rm -rf archive; mkdir archive")
	w.write("archive/duplicity-full.20231114T221320Z.vol1.difftar", string(volume))
	w.write("archive/duplicity-full-signatures.20231114T221320Z.sigtar", string(sigtar))
	w.write("archive/duplicity-full.20231114T221320Z.manifest", manifest)
}

// Nothing that an archive says is written outside the target, and what is sound
// in it is restored, or there is an error.
func TestHostileArchives(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	outside := w.path("outside")
	reg := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}
	}
	for name, members := range map[string][]tar.Header{
		"sound":                {dir("./"), reg("evil")},
		"dot dot":              {dir("./"), reg("../outside/evil")},
		"dot dot in a name":    {dir("./"), dir("d/"), reg("d/../../outside/evil")},
		"absolute":             {dir("./"), reg(outside + "/evil")},
		"a link in the way":    {dir("./"), link("l", outside), reg("l/evil")},
		"a link as the target": {dir("./"), link("l", outside+"/evil"), reg("l")},
		"a link twice":         {dir("./"), link("l", outside), dir("l/"), reg("l/evil")},
		"the root is a link":   {link("", outside), reg("evil")},
		"hard link":            {dir("./"), {Name: "h", Typeflag: tar.TypeLink, Linkname: outside + "/kept", Mode: 0o644}, reg("h")},
		"NUL and newline":      {dir("./"), reg("a\nb"), reg("c\x1b[2J")},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.sh("rm -rf outside out home/.cache; mkdir outside; echo kept > outside/kept")
			w.hostile(members)
			for _, opts := range [][]string{nil, {"--force"}} {
				r := w.exec(nil, binary, append([]string{"restore", "--no-encryption", url, "out"}, opts...)...)
				if r.code != 0 && r.code != exitDamaged {
					t.Errorf("exit %d\n%s", r.code, r.stderr)
				}
				if testing.Verbose() {
					t.Logf("exit %d: %s", r.code, printable(r.stderr))
				}
				if strings.ContainsAny(r.stderr+r.stdout, "\x1b") {
					t.Errorf("control characters in %q", r.stderr)
				}
				if got := w.sh("cd outside; ls -A; cat kept"); got != "kept\nkept\n" {
					t.Errorf("exit %d, outside:\n%s", r.code, got)
				}
				if got, _ := os.ReadFile(w.path("out/evil")); name == "sound" && string(got) != "evil\n" {
					t.Errorf("exit %d, %q was restored:\n%s", r.code, got, r.stderr)
				}
			}
			r := w.exec(nil, binary, "verify", "--no-encryption", url)
			if strings.Contains(r.stderr, "goroutine ") {
				t.Error(r.stderr)
			}
		})
	}
	w.t = t
}
