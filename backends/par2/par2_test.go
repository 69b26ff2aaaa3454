package par2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/file"
	"dupfs/backends/mem"
	"dupfs/internal/need"
)

func TestContract(t *testing.T) {
	need.Program(t, "par2")
	tmp := t.TempDir()
	o := Options{TempDir: tmp, Args: []string{"-b5"}}
	for name, open := range map[string]func(t testing.TB) backends.Backend{
		"mem": func(testing.TB) backends.Backend { return mem.New() },
		"file": func(t testing.TB) backends.Backend {
			b, err := file.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(t testing.TB) backends.Backend { return New(open(t), o) },
				backendtest.Options{Objects: 20, Large: 100_001, SkipNames: []string{"x", "X", "q?y=1", "a*b"}})
		})
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in temporary space: %v, %v", left, err)
	}
}

const name = "duplicity-full.20231114T221320Z.vol1.difftar.gpg"

// stored is a wrapped store with one file, and the store below.
func stored(t *testing.T, o Options, size int) (b backends.Backend, below *mem.Backend, data []byte) {
	t.Helper()
	need.Program(t, "par2")
	below, data = mem.New(), backendtest.Data(1, size)
	b = New(below, o)
	if err := b.Put(t.Context(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return b, below, data
}

func names(t *testing.T, b backends.Backend) []string {
	t.Helper()
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, 0, len(files))
	for _, f := range files {
		list = append(list, f.Name)
	}
	slices.Sort(list)
	return list
}

func heal(t *testing.T, b backends.Backend) ([]byte, error) {
	t.Helper()
	f, err := backends.HealerOf(b).Heal(t.Context(), name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func flip(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1
	return data
}

func TestHeal(t *testing.T) {
	const big, little = 300_000, 5000
	for _, c := range []struct {
		name   string
		size   int
		damage func(data []byte) []byte // nil: the file is removed
		want   string                   // part of the error; "" if it is healed
	}{
		{"one bit", big, func(d []byte) []byte { return flip(d, big/2) }, ""},
		{"first byte", big, func(d []byte) []byte { return flip(d, 0) }, ""},
		{"cut", big, func(d []byte) []byte { return d[:big-10_000] }, ""},
		{"too long", big, func(d []byte) []byte { return append(slices.Clone(d), 'x') }, ""},
		{"shifted", big, func(d []byte) []byte { return d[1:] }, ""},
		{"too much", big, func(d []byte) []byte { return d[:big/2] }, "beyond what its recovery files can repair"},
		{"empty", big, func([]byte) []byte { return nil }, "beyond what its recovery files can repair"},
		{"small and cut", little, func(d []byte) []byte { return d[:10] }, ""},
		{"small and empty", little, func(d []byte) []byte { return []byte{} }, ""},
		{"small and gone", little, nil, ""},
		{"intact", little, slices.Clone[[]byte], backends.ErrIntact.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := t.TempDir()
			b, below, data := stored(t, Options{TempDir: tmp}, c.size)
			if c.damage == nil {
				if err := below.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			} else {
				backendtest.Write(t, below, name, c.damage(data))
			}
			got, err := heal(t, b)
			if c.want == "" && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left in temporary space: %v, %v", left, err)
			}
		})
	}
}

// Recovery files may be missing or damaged themselves.
func TestHealWithLess(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, below *mem.Backend, recovery string)
		main   bool   // of NAME.par2, else of the others
		want   string // part of the error
	}{
		{"without NAME.par2", remove, true, ""},
		{"damaged NAME.par2", scratched, true, ""},
		{"without the others", remove, false, "beyond what"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, below, data := stored(t, Options{}, 300_000)
			backendtest.Write(t, below, name, flip(data, 7))
			for _, n := range names(t, below) {
				if fileOf(n) == name && (n == name+".par2") == c.main {
					c.damage(t, below, n)
				}
			}
			got, err := heal(t, b)
			if c.want == "" && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	b, below, _ := stored(t, Options{}, 5000)
	for _, n := range names(t, below) {
		if n != name {
			backendtest.Write(t, below, n, []byte("nothing that makes sense"))
		}
	}
	if _, err := heal(t, b); err == nil || !strings.Contains(err.Error(), "are damaged, too") {
		t.Errorf("%v", err)
	}
	if _, err := backends.HealerOf(b).Heal(t.Context(), "other.gpg"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file without recovery files: %v", err)
	}
}

func remove(t *testing.T, below *mem.Backend, n string) {
	t.Helper()
	if err := below.Delete(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func scratched(t *testing.T, below *mem.Backend, n string) {
	t.Helper()
	backendtest.Write(t, below, n, flip(backendtest.Read(t, below, n), 20))
}

// What par2 would write to another name is not given to it.
func TestForeignRecovery(t *testing.T) {
	b, below, data := stored(t, Options{}, 5000)
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("par2", "create", "-q", "-q", "-r100", "-n1", other).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(other + ".par2")
	if err != nil {
		t.Fatal(err)
	}
	backendtest.Write(t, below, name+".par2", text)
	backendtest.Write(t, below, name, flip(data, 7))
	if _, err := heal(t, b); err == nil || !strings.Contains(err.Error(), `of another file ("other")`) {
		t.Errorf("%v", err)
	}
}

// Whatever call to the store is the last one, there are no recovery files of a
// file that is not there, and none of older content.
func TestInterrupted(t *testing.T) {
	need.Program(t, "par2")
	old, new := backendtest.Data(1, 5000), backendtest.Data(2, 5000)
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, b backends.Backend) error
	}{
		{"put", func(ctx context.Context, b backends.Backend) error {
			return b.Put(ctx, "new.gpg", bytes.NewReader(new))
		}},
		{"put new", func(ctx context.Context, b backends.Backend) error {
			return b.(backends.Exclusive).PutNew(ctx, "new.gpg", bytes.NewReader(new))
		}},
		{"replace", func(ctx context.Context, b backends.Backend) error { return b.Put(ctx, name, bytes.NewReader(new)) }},
		{"delete", func(ctx context.Context, b backends.Backend) error { return b.Delete(ctx, name) }},
	} {
		for last := 1; ; last++ {
			below := mem.New()
			backendtest.Write(t, New(below, Options{}), name, old)
			faulty := backendtest.NewFaulty(below,
				backendtest.Fault{Op: backendtest.Put, Nth: last, Count: -1, Err: errors.New("dead")},
				backendtest.Fault{Op: backendtest.PutNew, Nth: last, Count: -1, Err: errors.New("dead")},
				backendtest.Fault{Op: backendtest.Delete, Nth: last, Count: -1, Err: errors.New("dead")})
			err := c.do(t.Context(), New(faulty, Options{}))
			fresh := New(below, Options{})
			files := names(t, fresh)
			all, rerr := backends.HealerOf(fresh).Recovery(t.Context())
			if rerr != nil {
				t.Fatal(rerr)
			}
			for of, r := range all {
				if r.Lost {
					t.Errorf("%s, %d calls: %d recovery files of %s, which is not there", c.name, last, r.Files, of)
				}
			}
			if slices.Contains(files, name) && all[name].Files > 0 {
				if data := backendtest.Read(t, below, name); bytes.Equal(data, new) {
					backendtest.Write(t, below, name, flip(new, 3))
					if got, err := heal(t, fresh); err == nil && !bytes.Equal(got, new) {
						t.Errorf("%s, %d calls: healed to something else", c.name, last)
					}
				}
			}
			if err == nil {
				break
			}
			if last > 20 {
				t.Fatal("it never succeeds")
			}
		}
	}
}

// A failed PutNew leaves what another one has stored alone.
func TestTaken(t *testing.T) {
	b, below, data := stored(t, Options{}, 5000)
	before := names(t, below)
	err := New(below, Options{}).(backends.Exclusive).PutNew(t.Context(), name, strings.NewReader("mine"))
	if !errors.Is(err, fs.ErrExist) || !slices.Equal(names(t, below), before) {
		t.Errorf("%v; %v", err, names(t, below))
	}
	backendtest.Write(t, below, name, flip(data, 9))
	if got, err := heal(t, b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v", err)
	}
}

// Recovery files share the tier of their file, and are hidden.
func TestTiersAndNames(t *testing.T) {
	b, below, _ := stored(t, Options{Volumes: 2}, 5000)
	if got := names(t, b); !slices.Equal(got, []string{name}) {
		t.Errorf("listed: %q", got)
	}
	if got := names(t, below); len(got) != 4 {
		t.Errorf("stored: %q", got)
	}
	if err := b.(backends.Tierer).SetTier(t.Context(), name, "Cool", ""); err != nil {
		t.Fatal(err)
	}
	files, err := below.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Tier != "Cool" {
			t.Errorf("%s is in tier %q", f.Name, f.Tier)
		}
	}
	if err := New(below, Options{}).Delete(t.Context(), name); err != nil || len(names(t, below)) > 0 {
		t.Errorf("after its removal: %v, %q", err, names(t, below))
	}
}

func TestNoProgram(t *testing.T) {
	below := mem.New()
	b := New(below, Options{Program: "no-such-par2"})
	if err := b.Put(t.Context(), name, strings.NewReader("x")); !errors.Is(err, ErrProgram) || len(names(t, below)) > 0 {
		t.Errorf("%v; %q", err, names(t, below))
	}
	backendtest.Write(t, below, name, []byte("x"))
	if got := backendtest.Read(t, b, name); string(got) != "x" {
		t.Errorf("%q", got)
	}
}

func TestProgramFails(t *testing.T) {
	below, tmp := mem.New(), t.TempDir()
	for program, want := range map[string]string{"false": "exit status 1", "true": "par2 made no recovery files"} {
		err := New(below, Options{Program: program, TempDir: tmp}).Put(t.Context(), name, strings.NewReader("x"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) || len(names(t, below)) > 0 {
			t.Errorf("%s: %v; %q", program, err, names(t, below))
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in temporary space: %v, %v", left, err)
	}
}

// Whatever a recovery file holds, reading it ends, and only what names the file
// itself describes it.
func FuzzPackets(f *testing.F) {
	f.Add([]byte(magic))
	f.Add(append([]byte("xPA"+magic), make([]byte, 100)...))
	f.Add([]byte(magic + strings.Repeat("\xff", 40) + kindFile + "body"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var d description
		if err := d.read(path, name); d.found && !bytes.Contains(data, []byte(name)) {
			t.Errorf("found, %v", err)
		}
	})
}
