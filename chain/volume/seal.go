package volume

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"math/bits"

	"dupfs/chain/pgp"
)

// plainChunk is the chunk of plain files.
const plainChunk = 256 << 10

// plainSealer stores plaintext as it is.
type plainSealer struct{ out *output }

func (s *plainSealer) encode(*encoder, *job) {}

func (s *plainSealer) chunk(j *job) error { return s.out.write(j.plain) }

func (s *plainSealer) overhead(int, int64) int64 { return 0 }

func (s *plainSealer) finish(l *Layout, sizes []chunkSize, plainSize int64) error {
	t := trailer{sizes: sizes}
	t.layout(l, 0)
	return nil
}

// gzipSealer writes one member a chunk.
type gzipSealer struct {
	out  *output
	opts Options
}

func (s *gzipSealer) encode(e *encoder, j *job) {
	if j.index == 0 && !s.opts.NoTrailer {
		j.stored = appendExtra(j.stored[:0], gzipMark, nil)
	} else {
		j.stored = append(j.stored[:0], gzipHead...)
	}
	j.stored = e.deflate(j.stored, j.plain, true)
	j.stored = binary.LittleEndian.AppendUint32(j.stored, crc32.ChecksumIEEE(j.plain))
	j.stored = binary.LittleEndian.AppendUint32(j.stored, uint32(len(j.plain)))
}

func (s *gzipSealer) chunk(j *job) error { return s.out.write(j.stored) }

// chunkEntry is about what a chunk takes in the table.
const chunkEntry = hashLen + 6

func (s *gzipSealer) overhead(chunks int, _ int64) int64 {
	if s.opts.NoTrailer {
		return 0
	}
	table := int64(chunks*chunkEntry + footerLen)
	return table + (table/maxPiece+1)*int64(extraHead+len(gzipTail))
}

func (s *gzipSealer) finish(l *Layout, sizes []chunkSize, plainSize int64) error {
	if plainSize == 0 && len(sizes) > 0 {
		sizes = nil // the member of an empty file
	}
	t := trailer{plainSize: plainSize, sizes: sizes}
	t.layout(l, 0)
	if s.opts.NoTrailer {
		return nil
	}
	return s.out.write(t.gzipTrailer())
}

// literalHead is what stands before the content in our literal packets: mode,
// no name, no date.
const (
	literalHead  = 6
	literalStart = "b\x00\x00\x00\x00\x00"
)

// pgpSealer writes an OpenPGP message.
type pgpSealer struct {
	out     *output
	opts    Options
	session pgp.Session

	signer  pgp.Signer // nil: it is not signed
	onePass []byte     // the packet before the content, if it is signed
	content hash.Hash  // what the signature is over

	cfb   *pgp.CFB
	mdc   hash.Hash
	head  int64  // offset of the encrypted packet's first length
	piece []byte // of the encrypted packet, being filled
	plain int64  // bytes encrypted
	outer framing
}

// The lengths of what stands before the deflate stream.
const (
	prefixLen = 16 + 2        // random bytes, and two of them repeated
	innerBase = prefixLen + 1 // the compressed packet's body: the algorithm, the stream
	streamAt  = 1             // of the deflate stream in it
	mdcLen    = 2 + sha1.Size // modification detection code
	mdcHead   = "\xd3\x14"    // its packet header
	packHead  = "\xa3\x01"    // compressed packet of indeterminate length, ZIP
	smallTail = smallTable + footerLen
)

func newPGPSealer(out *output, enc *pgp.Encrypter, o Options) (*pgpSealer, error) {
	esk, key, err := enc.NewSession()
	if err != nil {
		return nil, err
	}
	s := &pgpSealer{out: out, opts: o, session: pgp.Session{Cipher: pgp.AES256, Key: key}, mdc: sha1.New()}
	if s.signer = enc.Signer(); s.signer != nil {
		if s.onePass, err = pgp.OnePassPacket(s.signer); err != nil {
			return nil, err
		}
		s.content = s.signer.Hash().New()
	}
	block, err := s.session.Block()
	if err != nil {
		return nil, err
	}
	s.cfb = pgp.NewCFB(block, make([]byte, block.BlockSize()))
	s.head = int64(len(esk)) + 1
	s.outer = newFraming(s.head)
	s.piece = make([]byte, 0, 1<<o.pieceBits)
	if err := out.write(append(esk, 0xc0|pgp.TagProtected)); err != nil {
		return nil, err
	}
	s.piece = append(s.piece, 1) // version
	start := make([]byte, prefixLen-2, prefixLen+len(packHead))
	rand.Read(start)
	start = append(start, start[prefixLen-4:]...)
	return s, s.encrypt(append(start, packHead...))
}

func (s *pgpSealer) encode(e *encoder, j *job) {
	j.framed = j.framed[:0]
	p := j.plain
	if j.index == 0 {
		j.framed = append(append(j.framed, s.onePass...), 0xc0|pgp.TagLiteral)
	}
	switch head := j.headLen(); j.ending {
	case small:
		j.framed = pgp.AppendLength(j.framed, int64(head+len(p)+smallTail))
	case last:
		j.framed = pgp.AppendLength(j.framed, int64(head+len(p)))
	case goesOn:
		// Pieces are powers of two, the largest first.
		n := head + len(p)
		first := 1<<(bits.Len(uint(n))-1) - head
		j.framed = append(j.framed, pgp.Partial(bits.Len(uint(n))-1))
		j.framed = append(append(j.framed, literalStart[:head]...), p[:first]...)
		for p = p[first:]; len(p) > 0; {
			power := bits.Len(uint(len(p))) - 1
			j.framed = append(append(j.framed, pgp.Partial(power)), p[:1<<power]...)
			p = p[1<<power:]
		}
	}
	if j.ending != goesOn {
		j.framed = append(append(j.framed, literalStart[:j.headLen()]...), p...)
	}
	j.stored = e.deflate(j.stored[:0], j.framed, j.ending == last && s.signer == nil)
}

// headLen returns how much of the literal packet's start is in the chunk.
func (j *job) headLen() int {
	if j.index == 0 {
		return literalHead
	}
	return 0
}

func (s *pgpSealer) chunk(j *job) error {
	if s.signer != nil {
		s.content.Write(j.plain)
	}
	return s.encrypt(j.stored)
}

// encrypt adds p, which it overwrites, to what is encrypted.
func (s *pgpSealer) encrypt(p []byte) error {
	s.mdc.Write(p)
	return s.encryptOnly(p)
}

func (s *pgpSealer) encryptOnly(p []byte) error {
	s.plain += int64(len(p))
	s.cfb.Encrypt(p)
	for len(p) > 0 {
		if len(s.piece) == cap(s.piece) {
			if err := s.flushPiece(); err != nil {
				return err
			}
		}
		n := min(cap(s.piece)-len(s.piece), len(p))
		s.piece = append(s.piece, p[:n]...)
		p = p[n:]
	}
	return nil
}

// flushPiece writes a full piece, after which more follows.
func (s *pgpSealer) flushPiece() error {
	if err := s.out.write([]byte{pgp.Partial(s.opts.pieceBits)}); err != nil {
		return err
	}
	s.outer.add(1, int64(len(s.piece)), 1)
	err := s.out.write(s.piece)
	s.piece = s.piece[:0]
	return err
}

func (s *pgpSealer) overhead(chunks int, stored int64) int64 {
	n := s.head + 1 + innerBase + streamAt + mdcLen + stored>>s.opts.pieceBits + 5
	if !s.opts.NoTrailer {
		n += int64(chunks*chunkEntry + footerLen)
	}
	if s.signer != nil {
		n += usualSignature
	}
	return n
}

func (s *pgpSealer) finish(l *Layout, sizes []chunkSize, plainSize int64) error {
	if plainSize == 0 && len(sizes) > 0 {
		sizes = nil
	}
	t := trailer{plainSize: plainSize, sizes: sizes}
	t.layout(l, streamAt)
	l.msg = message{session: s.session, packing: packedZIP, inner: whole(innerBase)}
	if !s.opts.NoTrailer {
		if err := s.encrypt(s.trailer(&t)); err != nil {
			return err
		}
	}
	if err := s.sign(); err != nil {
		return err
	}
	s.mdc.Write([]byte(mdcHead))
	if err := s.encryptOnly(s.mdc.Sum([]byte(mdcHead))); err != nil {
		return err
	}
	length := pgp.AppendLength(nil, int64(len(s.piece)))
	s.outer.add(int64(len(length)), int64(len(s.piece)), 1)
	l.msg.outer = s.outer
	if err := s.out.write(length); err != nil {
		return err
	}
	return s.out.write(s.piece)
}

// usualSignature is about the size of the packets of a signature.
const usualSignature = 400

// sign ends the deflate stream of a signed message with the signature.
func (s *pgpSealer) sign() error {
	if s.signer == nil {
		return nil
	}
	sig, err := s.signer.Sign(s.content)
	if err != nil {
		return err
	}
	if storedLen(len(sig)) > signatureLen {
		return errors.New("the signature is too long")
	}
	return s.encrypt(storedBlocks(nil, sig, true))
}

// trailer returns the trailer as the end of the deflate stream, but for a
// signature. It is part of what is signed.
func (s *pgpSealer) trailer(t *trailer) []byte {
	isSmall := t.plainSize+literalHead < minChunk
	atLeast := 0
	if isSmall {
		atLeast = smallTable
	}
	table := t.appendTable(nil, atLeast)
	n := len(table) + footerLen
	var b []byte
	switch {
	case t.plainSize == 0:
		b = append(append(b, s.onePass...), 0xc0|pgp.TagLiteral)
		b = pgp.AppendLength(b, int64(literalHead+n))
		b = append(b, literalStart...)
	case !isSmall:
		b = pgp.AppendLength(b, int64(n))
	}
	start := len(b)
	b = append(b, table...)
	back := storedLen(len(b) + footerLen)
	b = t.appendFooter(b, start, trailerKey(s.session.Key), int64(back))
	if s.signer != nil {
		s.content.Write(b[start:])
	}
	return storedBlocks(nil, b, s.signer == nil)
}
