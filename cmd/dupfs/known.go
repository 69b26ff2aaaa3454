package main

import (
	"bufio"
	"encoding/gob"
	"errors"
	"io"
	"iter"
	"os"

	"dupfs/chain/backup"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
)

// knownSpool keeps what a backup learned of the source, on disk, until the
// backup has succeeded. Its file has no name.
type knownSpool struct {
	f   *os.File
	w   *bufio.Writer
	enc *gob.Encoder
}

// newKnownSpool returns an empty spool in a directory.
func newKnownSpool(dir string) (*knownSpool, error) {
	f, err := store.TempFile(dir)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	return &knownSpool{f, w, gob.NewEncoder(w)}, nil
}

// add is backup.Options.OnKnown.
func (s *knownSpool) add(k backup.Known) error { return s.enc.Encode(k) }

// all yields what was added, in order.
func (s *knownSpool) all() iter.Seq2[snapshot.Source, error] {
	return func(yield func(snapshot.Source, error) bool) {
		err := s.w.Flush()
		if err == nil {
			_, err = s.f.Seek(0, io.SeekStart)
		}
		for dec := gob.NewDecoder(bufio.NewReaderSize(s.f, 64<<10)); err == nil; {
			var k backup.Known
			if err = dec.Decode(&k); err != nil {
				break
			}
			if !yield(snapshot.Source{Path: k.Path, ID: k.ID, Ctime: k.Ctime, Ino: k.Ino}, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(snapshot.Source{}, err)
		}
	}
}

// close drops the spool; nothing in it is wanted any more.
func (s *knownSpool) close() { s.f.Close() }
