package pgp

import (
	"bufio"
	"context"
	"fmt"
	"slices"

	"dupfs/chain"
)

// Confirm tells which of the passphrases that k was made with, or which are
// asked for where there were none, opens a message. ok is false if the message
// is not encrypted to passphrases alone, so that they need not fit; then nobody
// is asked. r is as for Open; the error is chain.ErrNoKey if none fits.
func (k *Keys) Confirm(ctx context.Context, r *bufio.Reader, name string) (passphrase string, ok bool, err error) {
	m, esks, err := readHead(r)
	if err != nil {
		return "", false, damaged(name, err)
	}
	if len(esks) == 0 || slices.ContainsFunc(esks, func(e esk) bool { return e.tag != TagSKESK }) {
		return "", false, nil
	}
	body, err := m.Body.Peek(probeLen)
	if err != nil {
		return "", false, damaged(name, err)
	}
	passphrases, err := k.passes(ctx)
	if err != nil {
		return "", false, err
	}
	p := probe{m.Tag, body}
	for _, passphrase := range passphrases {
		for _, e := range esks {
			if err := ctx.Err(); err != nil {
				return "", false, err
			}
			s, err := parseSKESK(e.body)
			if err != nil {
				continue
			}
			if session, ok := s.open(k.derive(s, passphrase)); ok && p.fits(session) {
				return passphrase, true, nil
			}
		}
	}
	return "", false, fmt.Errorf("%s: wrong passphrase: %w", name, chain.ErrNoKey)
}
