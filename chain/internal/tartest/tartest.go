// Package tartest helps to test what reads and writes tar: expected trees, and
// Python's tarfile, which duplicity uses.
package tartest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"dupfs/chain"
	"dupfs/internal/need"
)

// Gunzip returns the plaintext of a gzip file.
func Gunzip(t testing.TB, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Row is an entry that duplicity restored.
type Row struct {
	Path   string `json:"path_b64"`
	Type   string
	Mode   string
	UID    uint32
	GID    uint32
	Mtime  int64
	Size   int64
	Target string `json:"target_b64"`
	Rdev   []uint32
}

// State reads what duplicity restored at a point.
func State(t testing.TB, file string) map[chain.Path]Row {
	t.Helper()
	var rows []Row
	if err := json.Unmarshal(Gunzip(t, file), &rows); err != nil {
		t.Fatal(err)
	}
	state := make(map[chain.Path]Row)
	for _, r := range rows {
		raw, err := base64.StdEncoding.DecodeString(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := chain.ParsePath(string(raw))
		if !ok {
			t.Fatalf("bad path %q", raw)
		}
		state[p] = r
	}
	return state
}

// Differ says where an entry differs from the restored one, "" if it does not.
func (r Row) Differ(e chain.Entry) string {
	mode, err := strconv.ParseUint(r.Mode, 8, 32)
	switch {
	case err != nil:
		return err.Error()
	case e.Type.String() != r.Type:
		return fmt.Sprintf("type %v, want %s", e.Type, r.Type)
	case e.Mode != uint32(mode):
		return fmt.Sprintf("mode %o, want %s", e.Mode, r.Mode)
	case e.UID != r.UID || e.GID != r.GID:
		return fmt.Sprintf("owner %d:%d, want %d:%d", e.UID, e.GID, r.UID, r.GID)
	// Duplicity does not restore the times of links.
	case e.Type != chain.Symlink && e.Mtime != chain.Time{Sec: max(r.Mtime, 0)}:
		return fmt.Sprintf("mtime %v, want %d", e.Mtime, r.Mtime)
	case e.Type == chain.Symlink && base64.StdEncoding.EncodeToString([]byte(e.Link)) != r.Target:
		return fmt.Sprintf("link to %q", e.Link)
	case len(r.Rdev) == 2 && (e.Major != r.Rdev[0] || e.Minor != r.Rdev[1]):
		return fmt.Sprintf("device %d:%d, want %v", e.Major, e.Minor, r.Rdev)
	}
	return ""
}

// Member is a member as Python's tarfile sees it. Texts are bytes.
type Member struct {
	Name, Link, User, Group []byte
	Type                    string // the type flag
	Mode, UID, GID          int64
	Mtime                   int64
	Major, Minor            int64
	Size                    int64
	Data                    []byte // of a file
	Off                     int64  // of the body; only read
	PAX                     map[string]string
}

const pythonRead = `
import base64, json, sys, tarfile
def b(s): return base64.b64encode(s.encode("utf-8", "surrogateescape")).decode()
out = []
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", errors="surrogateescape", encoding="utf-8") as tar:
    for m in tar:
        f = tar.extractfile(m) if m.isreg() else None
        out.append(dict(Name=b(m.name), Link=b(m.linkname), User=b(m.uname), Group=b(m.gname), Type=m.type.decode(),
            Mode=m.mode, UID=m.uid, GID=m.gid, Mtime=int(m.mtime), Major=m.devmajor, Minor=m.devminor, Size=m.size,
            Data=base64.b64encode(f.read()).decode() if f else None, Off=m.offset_data,
            PAX={k: v.encode("utf-8", "surrogateescape").decode("latin-1") for k, v in m.pax_headers.items()}))
json.dump(out, sys.stdout)
`

const pythonWrite = `
import base64, io, json, sys, tarfile
def s(b): return base64.b64decode(b or "").decode("utf-8", "surrogateescape")
fmt = dict(pax=tarfile.PAX_FORMAT, gnu=tarfile.GNU_FORMAT, ustar=tarfile.USTAR_FORMAT)[sys.argv[1]]
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=fmt, errors="surrogateescape", encoding="utf-8") as tar:
    for d in json.load(sys.stdin):
        m = tarfile.TarInfo(s(d["Name"]))
        m.linkname, m.uname, m.gname, m.type = s(d["Link"]), s(d["User"]), s(d["Group"]), d["Type"].encode()
        m.mode, m.uid, m.gid, m.mtime = d["Mode"], d["UID"], d["GID"], d["Mtime"]
        m.devmajor, m.devminor, m.size = d["Major"], d["Minor"], d["Size"]
        m.pax_headers = d["PAX"] or {}
        tar.addfile(m, io.BytesIO(base64.b64decode(d["Data"] or "")))
`

// PythonRead reads a tar stream with Python.
func PythonRead(t testing.TB, tar []byte) []Member {
	t.Helper()
	var members []Member
	if err := json.Unmarshal(python(t, tar, pythonRead), &members); err != nil {
		t.Fatal(err)
	}
	return members
}

// PythonWrite writes a tar stream with Python, in its format "pax", "gnu" or
// "ustar".
func PythonWrite(t testing.TB, format string, members []Member) []byte {
	t.Helper()
	in, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return python(t, in, pythonWrite, format)
}

func python(t testing.TB, in []byte, script string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(need.Program(t, "python3"), append([]string{"-c", script}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, stderr.Bytes())
	}
	return out
}

// FixSums returns tar with a right checksum in every block that is not zero,
// so that fuzzing comes to what lies behind the checksum.
func FixSums(tar []byte) []byte {
	tar = bytes.Clone(tar)
	for i := 0; i+512 <= len(tar); i += 512 {
		block := tar[i : i+512]
		if bytes.Count(block, []byte{0}) == 512 {
			continue
		}
		sum := 8 * int(' ')
		for j, c := range block {
			if j < 148 || j >= 156 {
				sum += int(c)
			}
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
	return tar
}
