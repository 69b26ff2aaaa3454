package backup

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"dupfs/backends"
	"dupfs/backends/mem"
	"dupfs/chain"
)

// meeting is a backend at which, before a file with word in its name is stored
// for the first time, something else happens.
type meeting struct {
	*mem.Backend
	word string
	meet func()
}

func (m *meeting) arrive(name string) {
	if meet := m.meet; meet != nil && strings.Contains(name, m.word) {
		m.meet = nil
		meet()
	}
}

func (m *meeting) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	m.arrive(name)
	return m.Backend.Put(ctx, name, r)
}

func (m *meeting) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	m.arrive(name)
	return m.Backend.PutNew(ctx, name, r)
}

// overwriting is a backend that cannot store where nothing is.
type overwriting struct{ backends.Backend }

// TestRivals lets another machine make a whole backup while one is under way, at
// several moments. One of the two wins, the other says so and leaves nothing,
// and what there is then is whole.
func TestRivals(t *testing.T) {
	for _, tt := range []struct {
		name, word string
		ahead      int64 // seconds by which the other one's clock is ahead
		full       bool
		plain      bool // the store cannot store where nothing is
	}{
		{name: "while volumes are stored", word: ".vol1.", ahead: 5},
		{name: "while volumes are stored, plain store", word: ".vol1.", ahead: 5, plain: true},
		{name: "just before the manifest, the other later", word: ".manifest", ahead: 5},
		{name: "just before the manifest, the other earlier", word: ".manifest", ahead: -5},
		{name: "in the same second", word: ".vol1.", full: true},
		{name: "increments in the same second", word: ".vol1."},
		{name: "in the same second, later", word: ".vol2.", full: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chain.Plain)
			w.tiny()
			w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
			w.small()
			store := mem.New()
			if w.backend = store; !tt.full {
				w.mustRun(true)
				w.write("d/other", noise(4, 14_000))
			}
			w.stampDirs()
			won := false
			m := &meeting{Backend: store, word: tt.word}
			m.meet = func() {
				other := *w
				other.now += tt.ahead
				other.backend = store
				if tt.plain {
					other.backend = overwriting{store}
				}
				_, err := other.run(tt.full)
				if won = err == nil; !won && !errors.Is(err, ErrRival) {
					t.Error(err)
				}
			}
			w.backend = m
			if tt.plain {
				w.backend = overwriting{m}
			}
			if _, err := w.run(tt.full); err == nil == won || err != nil && !errors.Is(err, ErrRival) {
				t.Errorf("the other one won: %v; this one: %v", won, err)
			}
			w.backend = store
			w.afterRivals(tt.full)
		})
	}
}

// afterRivals looks at an archive to which two wrote at once.
func (w *world) afterRivals(full bool) {
	w.t.Helper()
	st := w.store()
	files, err := st.List(w.t.Context())
	must(w.t, err)
	c := chain.Collect(files)
	sets := 2
	if full {
		sets = 1
	}
	if len(c.Lines) != 1 || len(c.Lines[0].Sets) != sets || len(c.Orphaned)+len(c.Incomplete)+len(c.LooseIndexes)+len(c.LooseSigtars) > 0 {
		w.t.Fatalf("%+v", c)
	}
	w.contents = nil
	for _, s := range c.Lines[0].Sets {
		plain := w.read(st, *s.Index)
		w.accept = func(chain.Path, string) bool { return true }
		if s == c.Lines[0].Sets[sets-1] {
			w.accept = nil
		}
		w.check(st, s, plain)
	}
}
