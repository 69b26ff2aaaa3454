package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dir keeps values as files, with a budget of bytes. Several processes may
// share a directory. A file appears whole or not at all, by rename; nothing is
// synced to disk, so that after a crash a file may hold anything: who reads
// checks. A full disk only means that nothing more is kept.
//
// What has not been used for the longest time goes first; use is noted in a
// file's modification time, at most once in an hour.
type Dir struct {
	root   string
	budget int64

	mu   sync.Mutex
	used int64 // estimate: own puts since the last sweep, on top of what it found
}

// maxValue bounds one value, in bytes.
const maxValue = 64 << 20

// OpenDir opens a cache directory, making it with mode 0700 if it is missing.
// A budget of 0 keeps nothing.
func OpenDir(root string, budget int64) (*Dir, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	d := &Dir{root: root, budget: budget}
	d.sweep()
	return d, nil
}

// path returns the file of a key. Keys are hashed: they may hold anything.
func (d *Dir) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	h := hex.EncodeToString(sum[:20])
	return filepath.Join(d.root, h[:2], h[2:])
}

// Get returns the value of key. The caller checks that it is intact, and
// calls Drop if not.
func (d *Dir) Get(key string) ([]byte, bool) {
	if d == nil {
		return nil, false
	}
	path := d.path(key)
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxValue {
		return nil, false
	}
	v, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	if now := time.Now(); now.Sub(info.ModTime()) > time.Hour {
		os.Chtimes(path, now, now) // best effort: only the order of leaving
	}
	return v, true
}

// Has reports whether there is a value for key.
func (d *Dir) Has(key string) bool {
	if d == nil {
		return false
	}
	_, err := os.Stat(d.path(key))
	return err == nil
}

// Put keeps a value, if there is room for it. Failing to is not an error:
// a cache may forget.
func (d *Dir) Put(key string, v []byte) {
	if d == nil || int64(len(v)) > min(d.budget, maxValue) {
		return
	}
	path := d.path(key)
	if err := writeFile(path, v); err != nil {
		return
	}
	d.mu.Lock()
	d.used += int64(len(v))
	full := d.used > d.budget
	d.mu.Unlock()
	if full {
		d.sweep()
	}
}

// writeFile makes a file appear whole.
func writeFile(path string, v []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-*") // mode 0600
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), "tmp-*")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(v)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Drop forgets key.
func (d *Dir) Drop(key string) {
	if d != nil {
		os.Remove(d.path(key))
	}
}

// kept is a file of the cache, as a sweep sees it.
type kept struct {
	path string
	size int64
	used time.Time
}

// sweep counts what is there and, above the budget, removes what was not used
// for the longest time until a tenth of the budget is free. Its memory grows
// with the number of files, some 150 bytes each.
func (d *Dir) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	files, total := d.scan()
	if total > d.budget {
		slices.SortFunc(files, func(a, b kept) int { return a.used.Compare(b.used) })
		for _, f := range files {
			if total <= d.budget-d.budget/10 {
				break
			}
			if os.Remove(f.path) == nil {
				total -= f.size
			}
		}
	}
	d.used = total
}

// scan lists the files, and removes leftovers of writers that died.
func (d *Dir) scan() (files []kept, total int64) {
	filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // another process may have removed it
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if strings.HasPrefix(e.Name(), "tmp-") {
			if time.Since(info.ModTime()) > time.Hour {
				os.Remove(path)
			}
			return nil
		}
		files = append(files, kept{path, info.Size(), info.ModTime()})
		total += info.Size()
		return nil
	})
	return files, total
}

// Used returns the bytes kept, as far as this process knows.
func (d *Dir) Used() int64 {
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}
