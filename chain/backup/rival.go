package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"dupfs/chain"
	"dupfs/chain/store"
)

// ErrRival says that another run, on another machine, wrote to the archive at
// the same time, and that this one gave way. Nothing of it is left.
var ErrRival = errors.New("another backup was made at the same time")

// rivalPatience is how long the run that ends first waits for the other one to
// give way, if both have finished at the same moment.
const rivalPatience = 3 * time.Second

// disown forgets the files that are perhaps another run's, so that they are not
// removed: all but those that were certainly stored.
func (s *setWriter) disown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = slices.DeleteFunc(s.started, func(f chain.Stored) bool { return !s.arrived[f.File] })
}

// alone is ErrRival if another run has finished a set that begins where this
// one does, or, before this set is complete, stored files under its names.
func (s *setWriter) alone(ctx context.Context, before bool) error {
	look := s.st.List
	if before {
		look = s.uncontested
	}
	files, err := look(ctx)
	if err != nil {
		return fmt.Errorf("a look for other backups: %w", err)
	}
	sizes := make(map[string]int64, len(files))
	for _, f := range files {
		sizes[f.File] = f.Size
		if s.rival(f.Name, before) {
			if f.End.Equal(s.name.End) {
				s.started = nil // whose they are cannot be told
			}
			return fmt.Errorf("%s: %w", f.File, ErrRival)
		}
	}
	if !before {
		return nil
	}
	for _, f := range s.started {
		if size, ok := sizes[f.File]; ok && (size < 0 || size == f.Size) {
			continue
		}
		// A listing can be behind what is stored.
		err := s.st.Check(ctx, f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrUploadSize) {
			s.started = nil // whose they are cannot be told
			return fmt.Errorf("%s: %w", f.File, ErrRival)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rival reports whether a stored file is the manifest of a set that excludes
// this one.
func (s *setWriter) rival(n chain.Name, before bool) bool {
	if n.Kind != chain.ManifestFile || n.Full != s.name.Full || n.Part {
		return false
	}
	if n.End.Equal(s.name.End) {
		return before && n.Start.Equal(s.name.Start)
	}
	return !n.Full && n.Start.Equal(s.name.Start) && !slices.ContainsFunc(s.o.Forks, n.End.Equal)
}

// settled looks once more, now that the set is complete: a run that finished at
// the same moment did not see this one before. The one that was begun later
// gives way; the other waits for that, and gives way too if it does not come.
func (s *setWriter) settled(ctx context.Context) error {
	if s.name.Full {
		return nil
	}
	for end := time.Now().Add(rivalPatience); ; {
		err := s.alone(ctx, false)
		if !errors.Is(err, ErrRival) {
			return nil // also if the look failed: the set is there
		}
		if s.later(ctx) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(rivalPatience / 6):
		case <-ctx.Done():
			return err
		}
	}
}

// later reports whether this set ends after all its rivals.
func (s *setWriter) later(ctx context.Context) bool {
	files, err := s.st.List(ctx)
	return err != nil || !slices.ContainsFunc(files, func(f chain.Stored) bool {
		return s.rival(f.Name, false) && f.End.After(s.name.End)
	})
}
