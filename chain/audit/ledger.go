package audit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Ledger remembers when each stored file was last read whole and found intact.
type Ledger struct {
	path string
	seen map[string]entry
}

// entry is what the ledger has of a file.
type entry struct {
	Size int64 `json:"size"`
	Unix int64 `json:"time"` // seconds since 1970
	// Sum is what the store said of the content then, "" if nothing.
	Sum string `json:"sum,omitempty"`
}

// OpenLedger reads the ledger in a file; one that is not there is empty, and so
// is one that makes no sense: it is only a memory of work.
func OpenLedger(path string) (*Ledger, error) {
	l := &Ledger{path: path, seen: map[string]entry{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(text, &l.seen) != nil || l.seen == nil {
		l.seen = map[string]entry{}
	}
	return l, nil
}

// Save writes the ledger, private to the user, forgetting files that are not
// among those given.
func (l *Ledger) Save(files []File) error {
	keep := make(map[string]entry, len(files))
	for _, f := range files {
		if e, ok := l.seen[f.File]; ok {
			keep[f.File] = e
		}
	}
	l.seen = keep
	text, err := json.Marshal(keep)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(l.path), ".verified-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), l.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("what was verified cannot be noted: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// Note remembers that a file was found intact, or, with a zero time, that it is
// not known to be.
func (l *Ledger) Note(f File, at time.Time) {
	if at.IsZero() {
		delete(l.seen, f.File)
		return
	}
	l.seen[f.File] = entry{f.Size, at.Unix(), f.Told}
}

// sum returns what the store said of a file when it was found intact.
func (l *Ledger) sum(f File) string {
	if l.when(f) == 0 {
		return ""
	}
	return l.seen[f.File].Sum
}

// when returns when a file was found intact; 0 if never, or not as it is now.
func (l *Ledger) when(f File) int64 {
	e, ok := l.seen[f.File]
	if !ok || e.Size != f.Size {
		return 0
	}
	return e.Unix
}

// Pick returns the files that were not looked at for longest, until they have
// that many bytes; at least one, if there is any.
func (l *Ledger) Pick(files []File, bytes int64) []File {
	order := slices.Clone(files)
	slices.SortStableFunc(order, func(a, b File) int { return cmp.Compare(l.when(a), l.when(b)) })
	for i, f := range order {
		if bytes -= max(f.Size, 0); bytes <= 0 {
			return order[:i+1]
		}
	}
	return order
}

// Coverage is how much of an archive was found intact.
type Coverage struct {
	Bytes, Total int64     // stored bytes known to have been intact, and all
	Oldest       time.Time // when the first of those was looked at last; zero if there are none
}

// Coverage tells how much of the files was found intact.
func (l *Ledger) Coverage(files []File) (c Coverage) {
	for _, f := range files {
		c.Total += max(f.Size, 0)
		if t := l.when(f); t != 0 {
			c.Bytes += max(f.Size, 0)
			if at := time.Unix(t, 0); c.Oldest.IsZero() || at.Before(c.Oldest) {
				c.Oldest = at
			}
		}
	}
	return c
}
