package backup

import (
	"bytes"
	"io"
	"os"

	"dupfs/chain/store"
)

// spoolMemory is how much a spool keeps in memory, in bytes.
const spoolMemory = 1 << 20

// spool keeps bytes in memory and, beyond spoolMemory, in a file that has no
// name any more. Write, then read as often as wanted with reader, then close.
type spool struct {
	dir  string
	mem  bytes.Buffer
	file *os.File
	n    int64
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.mem.Len()+len(p) > spoolMemory {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	n, err := len(p), error(nil)
	if s.file != nil {
		n, err = s.file.Write(p)
	} else {
		s.mem.Write(p)
	}
	s.n += int64(n)
	return n, err
}

// open moves what is in memory to a file.
func (s *spool) open() error {
	f, err := store.TempFile(s.dir)
	if err != nil {
		return err
	}
	s.file = f
	if _, err := f.Write(s.mem.Bytes()); err != nil {
		return err
	}
	s.mem = bytes.Buffer{}
	return nil
}

// size returns the bytes written.
func (s *spool) size() int64 { return s.n }

// reader returns what was written, from the start.
func (s *spool) reader() io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.n)
	}
	return bytes.NewReader(s.mem.Bytes())
}

// close frees what the spool holds. Nobody reads the file again, so that the
// error of closing says nothing.
func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
	*s = spool{dir: s.dir}
}
