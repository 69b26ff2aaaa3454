package manifest

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"dupfs/chain"
)

// Write writes a manifest that duplicity 0.6 to 3 reads. The list of changed
// files has count lines, which changes yields in path order; with changes nil
// there is no list. Every volume needs a hash and a number above the one
// before it, or duplicity breaks.
func Write(w io.Writer, m *Manifest, count int, changes iter.Seq2[Change, error]) error {
	bw := bufio.NewWriter(w)
	if strings.ContainsAny(m.Hostname, "\r\n") {
		return fmt.Errorf("a host name of two lines: %q", m.Hostname)
	}
	if m.Hostname != "" {
		fmt.Fprintf(bw, "Hostname %s\n", m.Hostname)
	}
	if m.Localdir != "" {
		fmt.Fprintf(bw, "Localdir %s\n", quote(m.Localdir))
	}
	if m.HasIndex {
		fmt.Fprintf(bw, "Dupfs-Index %x %d\n", m.IndexSHA256, m.IndexSize)
	}
	if m.SigtarSum != "" {
		fmt.Fprintf(bw, "Dupfs-Sigtar %s\n", m.SigtarSum)
	}
	last := 0
	for _, v := range m.Volumes {
		if v.Number <= last || !v.HasSHA1 && !v.HasMD5 {
			return fmt.Errorf("volume %d: out of order, or without a hash", v.Number)
		}
		last = v.Number
		v.write(bw)
	}
	if changes != nil {
		if err := writeList(bw, count, changes); err != nil {
			return err
		}
	}
	return bw.Flush()
}

// write writes a volume's block. Errors stay with bw.
func (v *Volume) write(bw *bufio.Writer) {
	fmt.Fprintf(bw, "Volume %d:\n", v.Number)
	fmt.Fprintf(bw, "    StartingPath   %s %s\n", quote(v.First.String()), block(v.FirstBlock))
	fmt.Fprintf(bw, "    EndingPath     %s %s\n", quote(v.Last.String()), block(v.LastBlock))
	if v.HasSHA1 {
		fmt.Fprintf(bw, "    Hash SHA1 %s\n", hex.EncodeToString(v.SHA1[:]))
	}
	if v.HasMD5 {
		fmt.Fprintf(bw, "    Hash MD5 %s\n", hex.EncodeToString(v.MD5[:]))
	}
	if v.PartSize > 0 {
		fmt.Fprintf(bw, "    Hash MD5-%d %s\n", v.PartSize, hex.EncodeToString(v.Parts[:]))
	}
}

// block returns a block number as it stands after a path.
func block(n int) string {
	if n < 0 {
		return " "
	}
	return strconv.Itoa(n)
}

// writeList writes the list of changed files.
func writeList(bw *bufio.Writer, count int, changes iter.Seq2[Change, error]) error {
	fmt.Fprintf(bw, "Filelist %d\n", count)
	n := 0
	var last chain.Path
	for c, err := range changes {
		switch {
		case err != nil:
			return err
		case !knownKind(c.Kind):
			return fmt.Errorf("%s: a change of kind %q", c.Path, c.Kind)
		case n > 0 && c.Path.Compare(last) <= 0:
			return fmt.Errorf("%s does not come after %s", c.Path, last)
		}
		n, last = n+1, c.Path
		if _, err := fmt.Fprintf(bw, "    %-7s  %s\n", c.Kind, quote(c.Path.String())); err != nil {
			return err
		}
	}
	if n != count {
		return fmt.Errorf("%d changed files, but %d were announced", n, count)
	}
	return nil
}
