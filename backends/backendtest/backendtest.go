// Package backendtest holds the contract of backends.Backend as a test that
// every driver passes on the real server, and wrappers that count what a
// backend is asked and that make it fail.
package backendtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dupfs/backends"
)

// Options adapt the contract to a store. The zero value suits a fast one.
type Options struct {
	// Objects is how many files the listing is tried with; 0 means 200.
	// DUPFS_OBJECTS in the environment overrides it.
	Objects int
	// Workers is how many of them are stored at a time; 0 means 8.
	Workers int
	// Large is the size of a file that takes the driver's way for large
	// files, in parts or segments; 0 means 3 MiB + 1.
	Large int
	// SkipNames are odd names that the store cannot have.
	SkipNames []string
	// NotAtomic is set for stores that replace a file without keeping the old
	// one until the new one is complete (WebDAV without MOVE).
	NotAtomic bool
	// Gap is set for servers that remove a file before another takes its name.
	Gap bool
	// Sums is set for stores that tell a sum of every file.
	Sums bool
	// Retried is set where requests are lost and repeated on purpose: then a
	// second Delete may succeed, and a reader that resumes while the file is
	// replaced may see a mixture.
	Retried bool
}

// Run runs the contract. open returns an empty store each time it is called;
// it closes it, and removes what is in it, by t.Cleanup.
func Run(t *testing.T, open func(t testing.TB) backends.Backend, o Options) {
	if o.Objects == 0 {
		o.Objects = 200
	}
	if n, err := strconv.Atoi(os.Getenv("DUPFS_OBJECTS")); err == nil && n > 0 {
		o.Objects = n
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.Large == 0 {
		o.Large = 3<<20 + 1
	}
	for _, c := range []struct {
		name string
		f    func(*suite)
	}{
		{"Empty", (*suite).empty},
		{"Sizes", (*suite).sizes},
		{"Position", (*suite).position},
		{"Ranges", (*suite).ranges},
		{"Overwrite", (*suite).overwrite},
		{"PutFails", (*suite).putFails},
		{"Names", (*suite).names},
		{"Delete", (*suite).delete},
		{"Many", (*suite).many},
		{"Cancelled", (*suite).cancelled},
		{"CancelPut", (*suite).cancelPut},
		{"CancelGet", (*suite).cancelGet},
		{"CloseEarly", (*suite).closeEarly},
		{"Concurrent", (*suite).concurrent},
		{"Replace", (*suite).replace},
		{"PutNew", (*suite).putNew},
		{"PutNewRace", (*suite).putNewRace},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			c.f(&suite{T: t, ctx: ctx, b: open(t), o: o})
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	b   backends.Backend
	o   Options
}

// Read returns all of a stored file.
func Read(t testing.TB, b backends.Backend, name string) []byte {
	t.Helper()
	r, err := b.Open(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Write stores a file.
func Write(t testing.TB, b backends.Backend, name string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

// Data returns n bytes that are the same for the same seed.
func Data(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	p := make([]byte, n)
	rand.NewChaCha8(key).Read(p)
	return p
}

func (s *suite) put(name string, data []byte) {
	s.Helper()
	if err := s.b.Put(s.ctx, name, bytes.NewReader(data)); err != nil {
		s.Fatalf("Put %q of %d bytes: %v", name, len(data), err)
	}
}

func (s *suite) get(name string, off, n int64) ([]byte, error) {
	r, err := s.b.Open(s.ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return data, err
}

func (s *suite) want(name string, data []byte) {
	s.Helper()
	got, err := s.get(name, 0, -1)
	if err != nil {
		s.Fatalf("reading %q: %v", name, err)
	}
	if !bytes.Equal(got, data) {
		s.Fatalf("%q holds %d bytes, not the %d that were stored", name, len(got), len(data))
	}
}

func (s *suite) list() map[string]int64 {
	s.Helper()
	files, err := s.b.List(s.ctx)
	if err != nil {
		s.Fatalf("List: %v", err)
	}
	m := map[string]int64{}
	for _, f := range files {
		if _, twice := m[f.Name]; twice {
			s.Errorf("List has %q twice", f.Name)
		}
		m[f.Name] = f.Size
	}
	return m
}

func (s *suite) wantList(names ...string) {
	s.Helper()
	var got []string
	for n := range s.list() {
		got = append(got, n)
	}
	slices.Sort(got)
	names = slices.Sorted(slices.Values(names))
	if !slices.Equal(got, names) {
		s.Errorf("List:\n got %q\nwant %q", got, names)
	}
}

// missing checks all that is said of a file that is not there.
func (s *suite) missing(name string) {
	s.Helper()
	check := func(op string, err error) {
		s.Helper()
		if !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("%s of the missing %q: %v, want fs.ErrNotExist", op, name, err)
		} else if !strings.Contains(err.Error(), name) {
			s.Errorf("%s: the error does not name %q: %v", op, name, err)
		}
	}
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {5, 10}} {
		_, err := s.get(name, r[0], r[1])
		check("Open", err)
	}
	if st, ok := s.b.(backends.Stater); ok {
		_, err := st.Stat(s.ctx, name)
		check("Stat", err)
	}
}

func (s *suite) empty() {
	s.wantList()
	s.missing("none.gpg")
	if err := s.b.Delete(s.ctx, "none.gpg"); !errors.Is(err, fs.ErrNotExist) && !s.o.Retried {
		s.Errorf("Delete of a missing file: %v, want fs.ErrNotExist", err)
	}
	s.wantList()
}

func (s *suite) sizes() {
	want := map[string]int64{}
	for i, n := range []int{0, 1, 511, 4096, 65535, 65536, 65537, 1 << 20, s.o.Large} {
		name := fmt.Sprintf("size-%d.gpg", n)
		data := Data(uint64(i), n)
		s.put(name, data)
		s.want(name, data)
		want[name] = int64(n)
		if st, ok := s.b.(backends.Stater); ok {
			f, err := st.Stat(s.ctx, name)
			if err != nil || f.Name != name || f.Size != int64(n) {
				s.Errorf("Stat %q: %+v, %v", name, f, err)
			}
			s.sum(f, data)
		}
	}
	all, err := s.b.List(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range all {
		if data, err := s.get(f.Name, 0, -1); err == nil {
			s.sum(f, data)
		}
	}
	got := s.list()
	for name, n := range want {
		if size, ok := got[name]; !ok || size != n && size != -1 {
			s.Errorf("List: %q has size %d (found: %v), want %d", name, size, ok, n)
		}
	}
}

// sum checks what the store says of a content, if it does.
func (s *suite) sum(f backends.File, data []byte) {
	s.Helper()
	whole, _, parts := strings.Cut(f.Sum, "-")
	if f.Sum != "" && !parts && f.Sum != fmt.Sprintf("%x", md5.Sum(data)) || parts && len(whole) != 32 {
		s.Errorf("%q: sum %q is not that of the content", f.Name, f.Sum)
	}
	if f.Sum == "" && s.o.Sums {
		s.Errorf("%q has no sum", f.Name)
	}
}

func (s *suite) position() {
	for _, n := range []int{1000, s.o.Large} {
		data := Data(2, n)
		r := bytes.NewReader(data)
		r.Seek(300, io.SeekStart)
		if err := s.b.Put(s.ctx, "rest.gpg", r); err != nil {
			s.Fatal(err)
		}
		s.want("rest.gpg", data[300:])
		if s.o.Large > 1000 {
			// Without ReadAt, too: a driver may look for it.
			r.Seek(300, io.SeekStart)
			if err := s.b.Put(s.ctx, "rest2.gpg", struct{ io.ReadSeeker }{r}); err != nil {
				s.Fatal(err)
			}
			s.want("rest2.gpg", data[300:])
		}
	}
}

func (s *suite) ranges() {
	data := Data(3, 1000)
	s.put("r.gpg", data)
	s.put("nothing.gpg", nil)
	large := Data(4, s.o.Large)
	s.put("large.gpg", large)
	for name, content := range map[string][]byte{"r.gpg": data, "nothing.gpg": nil, "large.gpg": large} {
		size := int64(len(content))
		mid := size / 2
		for _, off := range []int64{0, 1, mid, size - 1, size, size + 1, size + 5000} {
			for _, n := range []int64{-1, 0, 1, 2, 100, mid, size, size + 1, size + 70000} {
				if off < 0 {
					continue
				}
				from := min(off, size)
				want := content[from:]
				if n >= 0 {
					want = want[:min(n, size-from)]
				}
				got, err := s.get(name, off, n)
				if err != nil || !bytes.Equal(got, want) {
					s.Errorf("%s from %d, %d bytes: got %d bytes, %v; want %d", name, off, n, len(got), err, len(want))
				}
			}
		}
	}
}

func (s *suite) overwrite() {
	for i, n := range []int{1000, s.o.Large, 10, 0, s.o.Large - 1, 500} {
		data := Data(uint64(10+i), n)
		s.put("o.gpg", data)
		s.want("o.gpg", data)
		if size := s.list()["o.gpg"]; size != int64(n) && size != -1 {
			s.Errorf("listed with %d bytes after an upload of %d", size, n)
		}
	}
	s.wantList("o.gpg")
}

var errSource = errors.New("the source broke")

// broken fails after a number of bytes, or ends there as if it had been
// truncated since its size was asked.
type broken struct {
	*bytes.Reader
	after int64
	err   error
	then  func()
}

func (b *broken) Read(p []byte) (int, error) {
	pos := b.Size() - int64(b.Len())
	if pos >= b.after {
		if b.then != nil {
			b.then()
			b.then = nil
		}
		if b.err != nil {
			return 0, b.err
		}
	} else {
		p = p[:min(int64(len(p)), b.after-pos)]
	}
	return b.Reader.Read(p)
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.after {
		if b.then != nil {
			b.then()
		}
		if b.err != nil {
			return 0, b.err
		}
	}
	return b.Reader.ReadAt(p, off)
}

func (s *suite) putFails() {
	old := Data(20, 1000)
	s.put("old.gpg", old)
	for _, n := range []int{1000, s.o.Large} {
		for _, after := range []int{0, 1, n / 2, n - 1} {
			for _, name := range []string{"old.gpg", "new.gpg"} {
				if name == "old.gpg" && s.o.NotAtomic {
					continue
				}
				data := bytes.NewReader(Data(21, n))
				var r io.ReadSeeker = &broken{Reader: data, after: int64(after), err: errSource}
				if after%2 == 1 { // without ReadAt
					r = struct{ io.ReadSeeker }{r}
				}
				err := s.b.Put(s.ctx, name, r)
				if err == nil {
					s.Fatalf("Put %s of %d bytes from a source that fails after %d succeeded", name, n, after)
				}
				if !errors.Is(err, errSource) {
					s.Errorf("Put %s: the error is not the source's: %v", name, err)
				}
				if !strings.Contains(err.Error(), name) {
					s.Errorf("the error does not name %s: %v", name, err)
				}
			}
		}
	}
	if !s.o.NotAtomic {
		s.want("old.gpg", old)
	}
	s.missing("new.gpg")
	s.wantList("old.gpg")
}

// oddNames can all be file names in any store, as far as we know. With a
// prefix for file names users choose a part of them.
var oddNames = []string{
	"duplicity-full.20231114T221320Z.vol1.difftar.gpg", "x", "x.1", "xx", "X",
	"a b", " lead", "a+b", "a%41b", "a%2Fb", "a:b", "#x", "q?y=1", "a&b=c;d", "it's", `say "hi"`, "(a)[b]{c}",
	"ü-日本-\u00e9", "e\u0301", "-dash", "~tilde", "a,b", "@at", "$HOME", "100%", "a*b", "<a>|b", `back\slash`,
	"dot.", ".hidden", "..two", "long" + strings.Repeat("x", 196),
}

func (s *suite) names() {
	var names []string
	for _, name := range oddNames {
		if !slices.Contains(s.o.SkipNames, name) {
			names = append(names, name)
		}
	}
	for i, name := range names {
		s.put(name, Data(uint64(100+i), 10+i))
	}
	s.wantList(names...)
	for i, name := range names {
		s.want(name, Data(uint64(100+i), 10+i))
		if got, err := s.get(name, 3, 4); err != nil || !bytes.Equal(got, Data(uint64(100+i), 10+i)[3:7]) {
			s.Errorf("range of %q: %v", name, err)
		}
		if st, ok := s.b.(backends.Stater); ok {
			if f, err := st.Stat(s.ctx, name); err != nil || f.Size != int64(10+i) || f.Name != name {
				s.Errorf("Stat %q: %+v, %v", name, f, err)
			}
		}
	}
	for i, name := range names {
		if err := s.b.Delete(s.ctx, name); err != nil {
			s.Errorf("Delete %q: %v", name, err)
		}
		if i == len(names)/2 {
			s.wantList(names[i+1:]...)
		}
	}
	s.wantList()
}

func (s *suite) delete() {
	for _, n := range []int{100, s.o.Large} {
		s.put("a.gpg", Data(30, n))
		s.put("a.gpg.1", Data(31, 10))
		if err := s.b.Delete(s.ctx, "a.gpg"); err != nil {
			s.Fatal(err)
		}
		s.wantList("a.gpg.1")
		s.missing("a.gpg")
		err := s.b.Delete(s.ctx, "a.gpg")
		if !(s.o.Retried && err == nil) && (!errors.Is(err, fs.ErrNotExist) || !strings.Contains(fmt.Sprint(err), "a.gpg")) {
			s.Errorf("second Delete: %v, want fs.ErrNotExist with the name", err)
		}
		s.want("a.gpg.1", Data(31, 10))
	}
}

func (s *suite) many() {
	name := func(i int) string { return fmt.Sprintf("duplicity-full.20231114T221320Z.vol%d.difftar.gpg", i) }
	s.parallel(s.o.Objects, func(ctx context.Context, i int) error {
		return s.b.Put(ctx, name(i), bytes.NewReader(Data(1, i%7)))
	})
	check := func(first int) {
		s.Helper()
		got := s.list()
		if len(got) != s.o.Objects-first {
			s.Errorf("List has %d files, want %d", len(got), s.o.Objects-first)
		}
		for i := first; i < s.o.Objects; i++ {
			if size, ok := got[name(i)]; !ok || size != int64(i%7) && size != -1 {
				s.Fatalf("List: %s: size %d, found %v", name(i), size, ok)
			}
		}
	}
	check(0)
	half := s.o.Objects / 2
	s.parallel(half, func(ctx context.Context, i int) error { return s.b.Delete(ctx, name(i)) })
	check(half)
}

func (s *suite) parallel(n int, f func(ctx context.Context, i int) error) {
	s.Helper()
	g, ctx := errgroup.WithContext(s.ctx)
	g.SetLimit(s.o.Workers)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) cancelled() {
	s.put("c.gpg", Data(40, 100))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.b.List(ctx)
	errs := map[string]error{"List": err}
	r, err := s.b.Open(ctx, "c.gpg", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		r.Close()
	}
	errs["Open"] = err
	errs["Put"] = s.b.Put(ctx, "new.gpg", bytes.NewReader(Data(41, 100)))
	errs["Delete"] = s.b.Delete(ctx, "c.gpg")
	if st, ok := s.b.(backends.Stater); ok {
		_, errs["Stat"] = st.Stat(ctx, "c.gpg")
	}
	if e, ok := s.b.(backends.Exclusive); ok {
		errs["PutNew"] = e.PutNew(ctx, "new.gpg", bytes.NewReader(Data(41, 100)))
	}
	for op, err := range errs {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context: %v", op, err)
		}
	}
	s.wantList("c.gpg")
}

func (s *suite) cancelPut() {
	for i, n := range []int{1000, s.o.Large} {
		ctx, cancel := context.WithCancel(s.ctx)
		r := &broken{Reader: bytes.NewReader(Data(42, n)), after: int64(n / 2), then: cancel}
		err := s.b.Put(ctx, "new.gpg", struct{ io.ReadSeeker }{r})
		cancel()
		if err == nil && i == 0 {
			// So small a body may have been on its way already.
			if err := s.b.Delete(s.ctx, "new.gpg"); err != nil {
				s.Error(err)
			}
			continue
		}
		if !errors.Is(err, context.Canceled) {
			s.Errorf("Put cancelled in the middle of %d bytes: %v", n, err)
		}
	}
	s.wantList()
}

func (s *suite) cancelGet() {
	// Larger than what buffers and sockets can hold already.
	data := Data(43, max(s.o.Large, 24<<20))
	s.put("big.gpg", data)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	r, err := s.b.Open(ctx, "big.gpg", 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		s.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		s.Errorf("reading after the context was cancelled: %v", err)
	}
	s.want("big.gpg", data)
}

func (s *suite) closeEarly() {
	data := Data(44, s.o.Large)
	s.put("c.gpg", data)
	for i := range 40 {
		r, err := s.b.Open(s.ctx, "c.gpg", int64(i), -1)
		if err != nil {
			s.Fatal(err)
		}
		p := make([]byte, 100)
		if _, err := io.ReadFull(r, p); err != nil || !bytes.Equal(p, data[i:i+100]) {
			s.Fatalf("beginning of a body: %v", err)
		}
		r.Close()
	}
	s.want("c.gpg", data)
}

func (s *suite) concurrent() {
	shared := Data(50, 100_000)
	s.put("shared.gpg", shared)
	s.parallel(s.o.Workers*2, func(ctx context.Context, i int) error {
		name := fmt.Sprintf("own-%d.gpg", i)
		data := Data(uint64(51+i), 1000*i)
		if err := s.b.Put(ctx, name, bytes.NewReader(data)); err != nil {
			return err
		}
		if _, err := s.b.List(ctx); err != nil {
			return err
		}
		for _, c := range []struct {
			name string
			data []byte
		}{{name, data}, {"shared.gpg", shared}} {
			off := int64(len(c.data) / 3)
			got, err := s.get(c.name, off, 500)
			if err != nil {
				return err
			}
			if want := c.data[off:min(off+500, int64(len(c.data)))]; !bytes.Equal(got, want) {
				return fmt.Errorf("%s: wrong bytes", c.name)
			}
		}
		return s.b.Delete(ctx, name)
	})
	s.wantList("shared.gpg")
}

// replace reads a file while it is overwritten again and again: a reader gets
// the content of one time, whole, or an error, never a piece.
func (s *suite) replace() {
	if s.o.NotAtomic || s.o.Retried {
		s.Skip("the store does not replace files atomically")
	}
	versions := map[string]bool{}
	var all [][]byte
	for i := range 6 {
		all = append(all, Data(uint64(70+i), 200_000+i*1000))
		versions[string(all[i])] = true
	}
	s.put("v.gpg", all[0])
	g, ctx := errgroup.WithContext(s.ctx)
	g.Go(func() error {
		for _, v := range all[1:] {
			if err := s.b.Put(ctx, "v.gpg", bytes.NewReader(v)); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for range 10 {
				got, err := s.get("v.gpg", 0, -1)
				if err == nil && !versions[string(got)] {
					return fmt.Errorf("a mixture or a piece of %d bytes was read", len(got))
				}
				if err != nil && !errors.Is(err, backends.ErrTransient) && !(s.o.Gap && errors.Is(err, fs.ErrNotExist)) {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	s.want("v.gpg", all[len(all)-1])
}

func (s *suite) exclusive() backends.Exclusive {
	e, ok := s.b.(backends.Exclusive)
	if !ok {
		s.Skip("the store cannot create exclusively")
	}
	if err := e.PutNew(s.ctx, "probe.gpg", strings.NewReader("x")); errors.Is(err, errors.ErrUnsupported) {
		s.missing("probe.gpg")
		s.Skip("this server cannot create exclusively")
	}
	return e
}

func (s *suite) putNew() {
	e := s.exclusive()
	for _, n := range []int{0, 100, s.o.Large} {
		name := fmt.Sprintf("n%d.gpg", n)
		data := Data(60, n)
		err := e.PutNew(s.ctx, name, &broken{Reader: bytes.NewReader(Data(61, n+1)), after: int64(n), err: errSource})
		if !errors.Is(err, errSource) {
			s.Errorf("PutNew from a broken source: %v", err)
		}
		s.missing(name)
		if err := e.PutNew(s.ctx, name, bytes.NewReader(data)); err != nil {
			s.Fatalf("PutNew: %v", err)
		}
		for _, m := range []int{50, s.o.Large} {
			err := e.PutNew(s.ctx, name, bytes.NewReader(Data(62, m)))
			if !errors.Is(err, fs.ErrExist) || !strings.Contains(fmt.Sprint(err), name) {
				s.Errorf("PutNew of a name that is taken: %v, want fs.ErrExist with the name", err)
			}
		}
		s.want(name, data)
	}
}

func (s *suite) putNewRace() {
	e := s.exclusive()
	for _, n := range []int{100, s.o.Large} {
		name := fmt.Sprintf("race%d.gpg", n)
		var mu sync.Mutex
		var winners []int
		s.parallel(s.o.Workers, func(ctx context.Context, i int) error {
			err := e.PutNew(ctx, name, bytes.NewReader(Data(uint64(i), n)))
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				winners = append(winners, i)
				return nil
			}
			if errors.Is(err, fs.ErrExist) || errors.Is(err, backends.ErrTransient) {
				return nil
			}
			return err
		})
		if len(winners) != 1 {
			s.Fatalf("%d writers of a new file won: %v", len(winners), winners)
		}
		s.want(name, Data(uint64(winners[0]), n))
	}
}
