package volume

import (
	"errors"

	"dupfs/chain/pgp"
)

// packets takes the packets within an encrypted message, compression removed,
// as a stream of slices, and finds the content of the literal packet.
type packets struct {
	state packetState
	head  []byte // what was read of a header
	tag   int
	left  int64 // bytes of the piece; -1: all there are
	more  bool  // another piece follows

	seen   bool          // the literal packet has begun
	body   []byte        // of a signature packet
	verify *pgp.Verifier // nil: signatures are not looked at
}

type packetState uint8

const (
	atPacket  packetState = iota // a packet's header
	atPiece                      // the length of the literal packet's next piece
	inNaming                     // mode, name and date of the literal packet
	inContent                    // the literal packet's content
	inBody                       // a packet that is collected
	inSkipped                    // a packet that is ignored
)

var (
	errPackets  = errors.New("packets that do not belong in a message")
	errNoData   = errors.New("no literal packet in the message")
	errCutShort = errors.New("the message ends within a packet")
	// GnuPG drops carriage returns of such data when it decrypts.
	errText = errors.New("encrypted with GnuPG's option textmode, which spoils what is not text: what gpg --decrypt makes of it can be stored in its place")
)

// maxBody bounds a signature packet.
const maxBody = 64 << 10

// next takes bytes from b until it meets content, which it returns with the
// rest of b. No content: all of b was taken.
func (p *packets) next(b []byte) (content, rest []byte, err error) {
	for len(b) > 0 {
		switch p.state {
		case atPacket:
			b, err = p.packet(b)
		case atPiece:
			b, err = p.piece(b)
		case inNaming:
			b, err = p.naming(b)
		case inContent:
			if p.left == 0 {
				p.endPiece()
				continue
			}
			n := p.span(b)
			p.left -= n
			if p.left < 0 {
				p.left = -1
			}
			content, rest = b[:n], b[n:]
			if p.left == 0 {
				p.endPiece()
			}
			return content, rest, nil
		case inBody, inSkipped:
			b, err = p.collect(b)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, nil
}

// span returns how many bytes of b belong to the current piece.
func (p *packets) span(b []byte) int64 {
	if p.left < 0 {
		return int64(len(b))
	}
	return min(int64(len(b)), p.left)
}

// endPiece goes on behind a piece of the literal packet's content.
func (p *packets) endPiece() {
	p.state = atPacket
	if p.more {
		p.state = atPiece
	}
}

// packet takes a packet's header.
func (p *packets) packet(b []byte) ([]byte, error) {
	had := len(p.head)
	p.head = append(p.head, b[:min(len(b), pgp.MaxHeader-had)]...)
	tag, l, n, err := pgp.ParseHeader(p.head)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return b[len(p.head)-had:], nil
	}
	p.head = p.head[:0]
	b = b[n-had:]
	p.tag, p.left, p.more = tag, l.N, l.Partial
	switch {
	case tag == pgp.TagLiteral:
		if p.seen {
			return nil, errPackets
		}
		p.seen, p.state = true, inNaming
		return b, nil
	case tag == pgp.TagOnePass || tag == pgp.TagSignature:
		p.state, p.body = inBody, p.body[:0]
		if l.Partial || l.N < 0 || l.N > maxBody {
			return nil, errPackets
		}
	case pgp.Ignored(tag):
		p.state = inSkipped
		if l.Partial || l.N < 0 {
			return nil, errPackets
		}
	default:
		return nil, errPackets
	}
	if p.left == 0 {
		return b, p.endPacket()
	}
	return b, nil
}

// piece takes a length within the literal packet.
func (p *packets) piece(b []byte) ([]byte, error) {
	had := len(p.head)
	p.head = append(p.head, b[:min(len(b), pgp.MaxHeader-1-had)]...)
	l, n, err := pgp.ParseLength(p.head)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return b[len(p.head)-had:], nil
	}
	p.head = p.head[:0]
	p.left, p.more, p.state = l.N, l.Partial, inContent
	return b[n-had:], nil
}

// naming takes what stands before the content of a literal packet.
func (p *packets) naming(b []byte) ([]byte, error) {
	if p.left == 0 {
		// Its first piece is too small for it: nobody writes this, and the
		// standard forbids it.
		return nil, errPackets
	}
	if len(p.head) == 0 && (b[0] == 't' || b[0] == 'u') {
		return nil, errText
	}
	p.head = append(p.head, b[0])
	if p.left > 0 {
		p.left--
	}
	if len(p.head) >= 2 && len(p.head) == 2+int(p.head[1])+4 {
		p.head, p.state = p.head[:0], inContent
		if p.left == 0 {
			p.endPiece()
		}
	}
	return b[1:], nil
}

// collect takes the body of another packet.
func (p *packets) collect(b []byte) ([]byte, error) {
	n := p.span(b)
	if p.state == inBody && p.verify != nil {
		p.body = append(p.body, b[:n]...)
	}
	if p.left -= n; p.left == 0 {
		return b[n:], p.endPacket()
	}
	return b[n:], nil
}

// endPacket hands a collected packet over.
func (p *packets) endPacket() error {
	state := p.state
	p.state = atPacket
	if state != inBody || p.verify == nil {
		return nil
	}
	if p.tag == pgp.TagOnePass {
		return p.verify.OnePass(p.body)
	}
	return p.verify.Signature(p.body)
}

// finish checks that the message may end here.
func (p *packets) finish() error {
	switch {
	case !p.seen:
		return errNoData
	case p.state == inContent && (p.left < 0 || p.left == 0 && !p.more):
		return nil
	case p.state != atPacket || len(p.head) > 0:
		return errCutShort
	}
	return nil
}
