package web

import (
	"context"
	"crypto/md5"
	"fmt"
	"hash"
	"io"
)

// Sums are the MD5s that a server is told of what it is to store in parts.
type Sums struct {
	Size  int64
	Whole []byte
	Part  int64    // length of each part but the last
	Parts [][]byte // none of what is empty
}

// Measure reads all of r from where it stands, as parts of the given length.
func Measure(ctx context.Context, r io.Reader, part int64) (*Sums, error) {
	s := &Sums{Part: part}
	whole, sum, left := md5.New(), md5.New(), part
	flush := func() {
		s.Parts = append(s.Parts, sum.Sum(nil))
		sum.Reset()
		left = part
	}
	for buf := make([]byte, 128<<10); ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := r.Read(buf[:min(int64(len(buf)), left)])
		whole.Write(buf[:n])
		sum.Write(buf[:n])
		s.Size += int64(n)
		if left -= int64(n); left == 0 {
			flush()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if left < part {
		flush()
	}
	s.Whole = whole.Sum(nil)
	return s, nil
}

// Rest returns how many bytes lie between where r stands and its end.
func Rest(r io.Seeker) (int64, error) {
	here, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	_, err = r.Seek(here, io.SeekStart)
	return end - here, err
}

// CheckMD5 returns body, which ends with an error unless all of it has the MD5
// that the server has of object name.
func CheckMD5(body io.ReadCloser, name string, want []byte) io.ReadCloser {
	return &checked{ReadCloser: body, name: name, want: want, sum: md5.New()}
}

type checked struct {
	io.ReadCloser
	name string
	want []byte
	sum  hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Write(p[:n])
	if err != io.EOF {
		return n, err
	}
	if got := c.sum.Sum(nil); string(got) != string(c.want) {
		err = fmt.Errorf("get %s: the content is damaged: its MD5 is %x, but %x was stored", c.name, got, c.want)
	}
	return n, err
}
