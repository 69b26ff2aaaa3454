package difftar

import (
	"io"
	"strconv"
	"strings"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// Reader reads a volume's plaintext. Its memory is bounded, whatever the
// input is.
type Reader struct{ tar *tarstream.Reader }

// NewReader returns a Reader of r, from the beginning of the plaintext.
func NewReader(r io.Reader) *Reader { return &Reader{tarstream.NewReader(r)} }

// Next goes to the next member, past what is left of the current body. The
// Member is the caller's. It returns io.EOF at the first zero block and at
// the end of r. Damage, and what no duplicity writes, is a
// *chain.CorruptError; errors of r are returned as they are.
func (r *Reader) Next() (*Member, error) {
	h, err := r.tar.Next()
	if err != nil {
		return nil, err
	}
	m := &Member{Off: h.Off, Len: h.Size}
	path, err := m.parseName(h.Name)
	if err != nil {
		return nil, err
	}
	if m.Kind == Deleted {
		m.Entry.Path = path
		return m, nil
	}
	if m.Entry, err = h.Entry(); err != nil {
		return nil, err
	}
	m.Entry.Path = path
	if m.Entry.Type != chain.File && (m.Kind == Diff || m.Piece > 0) {
		return nil, corrupt(h.Name, "a piece or delta of what is no file")
	}
	return m, nil
}

// Read reads the body of the current member.
func (r *Reader) Read(p []byte) (int, error) { return r.tar.Read(p) }

// Drain reads what follows the last member to the end of the stream, so that
// checks made there (CRC, MDC, signature) are made. It returns nil if the
// stream ended with io.EOF.
func (r *Reader) Drain() error { return r.tar.Drain() }

// parseName sets m's Kind and Piece from a member's name, and returns its path.
func (m *Member) parseName(name string) (chain.Path, error) {
	prefix, rest, _ := strings.Cut(name, "/")
	kind, multi := strings.CutPrefix(prefix, "multivol_")
	switch {
	case kind == "snapshot":
		m.Kind = Snapshot
	case kind == "diff":
		m.Kind = Diff
	case prefix == "deleted":
		m.Kind = Deleted
	default:
		return "", corrupt(name, "a prefix that is not known")
	}
	if multi {
		i := strings.LastIndexByte(rest, '/')
		n, err := strconv.ParseInt(rest[i+1:], 10, 32)
		if err != nil || n < 1 || i < 0 {
			return "", corrupt(name, "a piece without its number")
		}
		m.Piece, rest = int(n), rest[:i]
	}
	path, ok := chain.ParsePath(rest)
	if !ok {
		return "", corrupt(name, "a path that leads out of the backup")
	}
	return path, nil
}

func corrupt(name, reason string) error { return chain.Corrupt("member "+name, reason) }
