package volume

import (
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"hash/crc32"
)

func sha1Sum(b []byte) []byte {
	sum := sha1.Sum(b)
	return sum[:]
}

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, 6)
	w.Write(b)
	w.Close()
	return out.Bytes()
}
