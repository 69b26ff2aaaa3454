package audit

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"dupfs/chain"
	"dupfs/chain/manifest"
	"dupfs/chain/store"
)

// sums returns what a store may tell of a volume of that size.
func sums(v manifest.Volume, size int64) (out []string) {
	if v.HasMD5 {
		out = append(out, hex.EncodeToString(v.MD5[:]))
	}
	if v.PartSize > 0 && size > 0 {
		out = append(out, fmt.Sprintf("%x-%d", v.Parts, (size-1)/v.PartSize+1))
	}
	return out
}

// Verdict is what a store's checksum says of a stored file.
type Verdict int

// The verdicts of Compare.
const (
	Unsure  Verdict = iota // the store, or the archive, does not tell
	Same                   // it is what was stored, or what was read last time
	Differs                // it is something else
	Suspect                // it may be something else: it must be read
)

// Compare compares what the store says of a file with what the manifest does,
// and with what the store said when Check found the file intact. Where the
// listing alone speaks against the file the store is asked once more: one
// request. Nothing is downloaded.
func (l *Ledger) Compare(ctx context.Context, st *store.Store, f File) (Verdict, error) {
	v := l.compare(f)
	if v != Differs && v != Suspect {
		return v, nil
	}
	var err error
	if f.Told, err = st.AskSum(ctx, f.Stored); err != nil {
		return Unsure, err
	}
	return l.compare(f), nil
}

func (l *Ledger) compare(f File) Verdict {
	if f.Told == "" {
		return Unsure
	}
	_, parts, inParts := strings.Cut(f.Told, "-")
	v := Unsure
	for _, want := range append([]string{l.sum(f)}, f.Sums...) {
		_, n, wantParts := strings.Cut(want, "-")
		switch {
		case want == "":
		case want == f.Told:
			return Same
		case wantParts != inParts || n != parts: // of another kind
		case !inParts && f.Kind == chain.VolumeFile:
			v = Differs
		case v == Unsure:
			// Another program may have copied the file in parts of another size,
			// and signatures may have been made anew.
			v = Suspect
		}
	}
	return v
}
