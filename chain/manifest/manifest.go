// Package manifest reads and writes the manifest of a set: which paths are in
// which volume, and the hash of each volume. It is text:
//
//	Hostname vm
//	Localdir src
//	Dupfs-Index <sha256> <size>             (ours; duplicity passes over it)
//	Dupfs-Sigtar <MD5, or what Parts is>    (ours)
//	Volume 1:
//	    StartingPath   .
//	    EndingPath     large.bin 10
//	    Hash SHA1 c656701bb82e2663afab3588b8b31e5e80d596d0
//	    Hash MD5 ...                        (as in old versions of duplicity; the
//	    Hash MD5-16777216 ...                better one counts there)
//	Filelist 2
//	    new      del/one
//	    changed  "names/sp\x20ace"
//
// Paths are bytes. One with white space, a backslash or a quotation mark is
// put in double quotes, and each such byte becomes \x and two hex digits. The
// number after a path says which piece of a file a volume begins or ends with.
package manifest

import (
	"fmt"
	"strings"

	"dupfs/chain"
)

// Volume is what a manifest says of one volume.
type Volume struct {
	Number int // from 1
	// First and Last are the paths of the first and the last member. After a
	// run that was interrupted and resumed, First can come too late: a search
	// that finds nothing should look into the other volumes as well.
	First, Last chain.Path
	// FirstBlock and LastBlock are the numbers of the first and last member
	// within their files, -1 where the member is a whole file or its last piece.
	FirstBlock, LastBlock int
	// SHA1 and MD5 are hashes of the stored file. A hash that the manifest
	// garbles is present and zero: no volume matches it.
	SHA1    [20]byte
	HasSHA1 bool
	MD5     [16]byte
	HasMD5  bool
	// Parts is the MD5 of the MD5s of the parts of PartSize bytes that the
	// stored file has, which is what some stores tell of one that came in
	// parts. PartSize is 0 if there is none.
	Parts    [16]byte
	PartSize int64
}

// MayHold reports whether the volume can have a member for p or something
// below p.
func (v Volume) MayHold(p chain.Path) bool {
	return cut(v.First, p).Compare(p) <= 0 && p.Compare(v.Last) <= 0
}

// cut returns p cut to as many components as q has.
func cut(p, q chain.Path) chain.Path {
	if q == chain.Root {
		return chain.Root
	}
	n := strings.Count(string(q), "/") + 1
	for i := range len(p) {
		if p[i] == '/' {
			if n--; n == 0 {
				return p[:i]
			}
		}
	}
	return p
}

// Manifest is a set's manifest without its list of changed files.
type Manifest struct {
	Hostname string   // "" if absent
	Localdir string   // the source argument of the run, as bytes; "" if absent
	Volumes  []Volume // by number
	// IndexSHA256 and IndexSize bind the set's index file, plaintext, if
	// HasIndex.
	IndexSHA256 [32]byte
	IndexSize   int64
	HasIndex    bool
	// SigtarSum is what a store may tell of the stored signatures of the set, in
	// the form of backends.File; "" if none was noted. They may have been made
	// anew since.
	SigtarSum string
}

// Change is one line of a manifest's list of changed files, which names
// regular files only.
type Change struct {
	Kind string // "new", "changed" or "deleted"
	Path chain.Path
}

func knownKind(kind string) bool {
	return kind == "new" || kind == "changed" || kind == "deleted"
}

// Gap is a run of volumes that are not there.
type Gap struct{ First, Last int }

func (g Gap) String() string {
	if g.First == g.Last {
		return fmt.Sprintf("volume %d is missing", g.First)
	}
	return fmt.Sprintf("volumes %d to %d are missing", g.First, g.Last)
}

// Missing returns the volumes that the manifest names and that are not among
// those, which a listing has.
func (m *Manifest) Missing(volumes []chain.Stored) []Gap {
	there := make(map[int]bool, len(volumes))
	for _, v := range volumes {
		there[v.Volume] = true
	}
	var gaps []Gap
	for _, v := range m.Volumes {
		switch n := len(gaps); {
		case there[v.Number]:
		case n > 0 && gaps[n-1].Last == v.Number-1:
			gaps[n-1].Last = v.Number
		default:
			gaps = append(gaps, Gap{v.Number, v.Number})
		}
	}
	return gaps
}
