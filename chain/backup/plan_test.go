package backup

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// planned runs a planner over events and returns what it sends. base lists
// the paths of the base; an event is a path of the source, or "keep " and one.
func planned(t *testing.T, base []string, events []string) []string {
	t.Helper()
	out := make(chan *item, 100)
	r := &run{o: Options{}.withDefaults(), budget: semaphore.NewWeighted(1 << 20)}
	p := &planner{run: r, out: out, ctx: t.Context()}
	next, stop := iter.Pull2(func(yield func(*BaseEntry, error) bool) {
		for _, b := range base {
			if !yield(&BaseEntry{Entry: chain.Entry{Path: chain.Path(b), Type: chain.Dir}, SigLen: -1}, nil) {
				return
			}
		}
	})
	defer stop()
	p.next = next
	must(t, p.advance())
	for _, e := range events {
		var path string
		if _, err := fmt.Sscanf(e, "keep %s", &path); err == nil {
			must(t, p.keep(chain.Path(path)))
			continue
		}
		s := &source{xattrs: true}
		s.Path, s.Type = chain.Path(e), chain.Fifo // always another type
		must(t, p.entry(s))
	}
	must(t, p.finish())
	close(out)
	var got []string
	for it := range out {
		got = append(got, fmt.Sprintf("%v %s", it.kind, it.path))
	}
	return got
}

func TestPlannerMerge(t *testing.T) {
	for _, tt := range []struct{ base, events, want []string }{
		{nil, []string{"", "a"}, []string{"snapshot .", "snapshot a"}},
		{[]string{"", "a", "a/b", "a b", "c"}, []string{"", "a b"},
			[]string{"snapshot .", "deleted a", "deleted a/b", "snapshot a b", "deleted c"}},
		{[]string{"", "a", "a/b", "a/b/c", "a.", "c"}, []string{"", "keep a"}, []string{"snapshot .", "deleted a.", "deleted c"}},
		{[]string{"", "a", "a/b", "a/b/c", "a.", "c"}, []string{"", "a", "keep a", "c"},
			[]string{"snapshot .", "snapshot a", "deleted a.", "snapshot c"}},
		{[]string{"", "a", "a/b"}, []string{"", "a", "a/a", "a/c"},
			[]string{"snapshot .", "snapshot a", "snapshot a/a", "deleted a/b", "snapshot a/c"}},
		{[]string{"", "a"}, []string{"", "keep b"}, []string{"snapshot .", "deleted a"}},
		{[]string{"", "x"}, nil, []string{"deleted x"}}, // the root is never deleted
	} {
		if got := planned(t, tt.base, tt.events); !slices.Equal(got, tt.want) {
			t.Errorf("base %q, source %q:\ngot  %q\nwant %q", tt.base, tt.events, got, tt.want)
		}
	}
}

// TestClassify says what is new, changed, unchanged, or to be looked into.
func TestClassify(t *testing.T) {
	const same, changed, check = "same", "changed", "check"
	file := chain.Entry{Type: chain.File, Mode: 0o644, UID: 1, GID: 2, Mtime: chain.Time{Sec: 100, Nsec: 7}, Size: 600}
	link := chain.Entry{Type: chain.Symlink, Mode: 0o777, Link: "x", Mtime: chain.Time{Sec: 100}}
	dev := chain.Entry{Type: chain.CharDevice, Major: 1, Minor: 3, Mtime: chain.Time{Sec: 100}}
	exact := func(b *BaseEntry) { b.Exact = true }
	noted := func(b *BaseEntry) { b.Exact, b.Ctime, b.Ino = true, 5, 6 }
	stock := func(b *BaseEntry) { b.Mtime.Nsec, b.Size, b.SigLen = 0, -1, 12+2*12 }
	for _, tt := range []struct {
		name string
		e    chain.Entry
		base func(*BaseEntry)
		src  func(*source)
		want string
	}{
		{"exact", file, exact, nil, same},
		{"mode", file, exact, func(s *source) { s.Mode = 0o600 }, changed},
		{"owner", file, exact, func(s *source) { s.UID = 9 }, changed},
		{"group", file, exact, func(s *source) { s.GID = 9 }, changed},
		{"nanoseconds", file, exact, func(s *source) { s.Mtime.Nsec++ }, changed},
		{"size", file, exact, func(s *source) { s.Size++ }, changed},
		{"xattr", file, exact, func(s *source) { s.Xattrs = []chain.Xattr{{Name: "user.a"}} }, changed},
		{"link group", file, exact, func(s *source) { s.LinkGroup = 4 }, changed},
		{"no local knowledge", file, exact, func(s *source) { s.ctime = 99 }, same},
		{"known", file, noted, nil, same},
		{"ctime", file, noted, func(s *source) { s.ctime++ }, check},
		{"inode", file, noted, func(s *source) { s.ino++ }, check},
		{"to be compared anyway", file, func(b *BaseEntry) { b.Exact, b.Ctime, b.Ino = true, -1, 6 }, nil, check},
		{"known, so xattrs are not asked for", file, noted, func(s *source) { s.Xattrs = []chain.Xattr{{Name: "user.a"}} }, same},
		{"stock", file, stock, nil, same},
		{"stock, nanoseconds", file, stock, func(s *source) { s.Mtime.Nsec++ }, same},
		{"stock, seconds", file, stock, func(s *source) { s.Mtime.Sec++ }, changed},
		{"stock, xattr", file, stock, func(s *source) { s.Xattrs = []chain.Xattr{{Name: "user.a"}} }, same},
		{"stock, size in the same blocks", file, stock, func(s *source) { s.Size = 1024 }, same},
		{"stock, size in more blocks", file, stock, func(s *source) { s.Size = 1025 }, check},
		{"stock, size in fewer blocks", file, stock, func(s *source) { s.Size = 512 }, check},
		{"stock, before 1970", file, func(b *BaseEntry) { stock(b); b.Mtime.Sec = 0 },
			func(s *source) { s.Mtime.Sec = -5 }, same},
		{"type", file, exact, func(s *source) { s.Type = chain.Fifo }, changed},
		{"link", link, exact, nil, same},
		{"target", link, exact, func(s *source) { s.Link = "y" }, changed},
		{"mode of a link", link, exact, func(s *source) { s.Mode = 0o755 }, same},
		{"stock, mtime of a link", link, stock, func(s *source) { s.Mtime.Sec++ }, same},
		{"ctime of a link", link, noted, func(s *source) { s.ctime++ }, same},
		{"minor", dev, exact, func(s *source) { s.Minor++ }, changed},
		{"stock, mtime of a device", dev, stock, func(s *source) { s.Mtime.Sec++ }, same},
	} {
		b := &BaseEntry{Entry: tt.e, SigLen: -1}
		tt.base(b)
		s := &source{Entry: tt.e, xattrs: true, ctime: 5, ino: 6}
		if tt.src != nil {
			tt.src(s)
		}
		it := &item{kind: difftar.Snapshot, src: s, base: b}
		p := &planner{run: &run{}}
		must(t, p.classify(it))
		got := changed
		switch {
		case it.kind == 0:
			got = same
		case it.check:
			got = check
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPlausible(t *testing.T) {
	sig := func(blocks int64) int64 { return 12 + 12*blocks }
	for _, tt := range []struct {
		size, sigLen int64
		want         bool
	}{
		{0, sig(0), true}, {0, sig(1), false}, {1, sig(1), true}, {512, sig(1), true}, {513, sig(1), false},
		{513, -1, true},
		{1023999, sig(2000), true}, {1023999, sig(1999), false},
		{2048000, sig(2000), true},  // blocks of 1024
		{2048000, sig(4000), true},  // a cap of 512
		{10240000, sig(5000), true}, // the usual cap of 2048
		{10240000, sig(2000), true}, // no cap: 5120
		{10240000, sig(1999), false}, {10240000, sig(20001), false},
	} {
		if got := plausible(tt.size, tt.sigLen); got != tt.want {
			t.Errorf("size %d, signature of %d: %v", tt.size, tt.sigLen, got)
		}
	}
}

func TestTimes(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var noTime time.Time
	for _, tt := range []struct {
		now, last  time.Time
		inc        bool
		start, end int64
		err        bool
	}{
		{time.Unix(100, 999), noTime, false, 100, 100, false},
		{at(100), at(50), true, 50, 100, false},
		{at(100), at(100), true, 100, 101, false},
		{at(100), at(100), false, 101, 101, false},
		{at(100), at(104), true, 104, 105, false},
		{at(100), at(106), true, 0, 0, true},
		{at(100), noTime, true, 0, 0, true},
	} {
		r := &run{o: Options{Now: tt.now, Last: tt.last}}
		if tt.inc {
			r.base = memBase{}
		}
		err := r.times()
		if (err != nil) != tt.err || err == nil && (r.name.Start.Unix() != tt.start || r.name.End.Unix() != tt.end || r.name.Full == tt.inc) {
			t.Errorf("%+v: %v, %+v", tt, err, r.name)
		}
		if tt.now == at(100) && tt.last == at(106) && !errors.Is(err, ErrClock) {
			t.Errorf("clock: %v", err)
		}
	}
}

func TestUnsettle(t *testing.T) {
	for _, tt := range []struct{ e, now, want chain.Time }{
		{chain.Time{Sec: 5, Nsec: 1}, chain.Time{Sec: 6}, chain.Time{Sec: 5, Nsec: 1}},
		{chain.Time{Sec: 5, Nsec: 1}, chain.Time{Sec: 5, Nsec: 2}, chain.Time{Sec: 4, Nsec: 999999999}},
		{chain.Time{Sec: 5}, chain.Time{Sec: 5}, chain.Time{Sec: 4, Nsec: 999999999}},
		{chain.Time{Sec: -5}, chain.Time{Sec: -3}, chain.Time{Sec: 1}},
	} {
		e := chain.Entry{Mtime: tt.e}
		unsettle(&e, tt.now)
		if e.Mtime != tt.want {
			t.Errorf("%v, now %v: %v", tt.e, tt.now, e.Mtime)
		}
	}
}

func TestFresh(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		ctime time.Time
		want  bool
	}{
		{now.Add(-40 * time.Millisecond), true}, {now.Add(-60 * time.Millisecond), false},
		{now.Add(time.Hour), true}, {time.Unix(998, 0), true}, {time.Unix(997, 0), false},
	} {
		if got := fresh(tt.ctime.UnixNano(), now); got != tt.want {
			t.Errorf("%v: %v", tt.ctime, got)
		}
	}
}
