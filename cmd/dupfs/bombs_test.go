package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	bits "encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// bombsVariable asks for the long form: bombs of that many GiB, and every
// command on each of them.
const bombsVariable = "DUPFS_BOMBS"

// Bounds of a command on a bomb. What a sound archive takes is some 60 MiB.
const (
	bombMemory = 320 // MiB; an index is read in frames of up to 64
	bombTime   = 1 * time.Minute
	bombSize   = 384 // MiB, for which that is the time
)

// peakWithin runs dupfs for that long at most and returns its peak of memory in
// MiB as well. The kernel counts that from the process that starts another one
// on, so that a small one must do it.
func (w *world) peakWithin(limit time.Duration, args ...string) (result, int64) {
	w.t.Helper()
	out := w.path("peak")
	r := w.exec(nil, need.Program(w.t, "time"), append([]string{"-q", "-f", "%M", "-o", out,
		"timeout", "-s", "QUIT", strconv.Itoa(int(limit.Seconds())), "prlimit", "--as=" + strconv.Itoa(3<<30), binary}, args...)...)
	text, err := os.ReadFile(out)
	if err != nil {
		w.t.Fatal(err)
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		w.t.Fatalf("%s: %q: %v", r.line, text, err)
	}
	return r, kib >> 10
}

// A bomb is a stored file that unfolds: what is written to it is compressed,
// what is repeated costs nearly nothing.
type bomb struct {
	t   *testing.T
	f   *os.File
	sum hash.Hash
	gz  bool
}

func (w *world) bomb(name string) *bomb {
	w.t.Helper()
	f, err := os.Create(w.path("archive", name))
	must(w.t.(*testing.T), err)
	return &bomb{t: w.t.(*testing.T), f: f, sum: sha1.New(), gz: strings.HasSuffix(name, ".gz")}
}

func (b *bomb) raw(p []byte) {
	b.t.Helper()
	b.sum.Write(p)
	if _, err := b.f.Write(p); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bomb) packed(p []byte) []byte {
	if !b.gz {
		return p
	}
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	_, _ = z.Write(p)
	_ = z.Close()
	return out.Bytes()
}

func (b *bomb) Write(p []byte) (int, error) {
	b.t.Helper()
	b.raw(b.packed(p))
	return len(p), nil
}

// repeat writes p until there are n bytes of it.
func (b *bomb) repeat(p []byte, n int64) {
	b.t.Helper()
	if len(p) == 0 {
		p = make([]byte, 1<<20)
	}
	unit := bytes.Repeat(p, max(1, (16<<20)/len(p)))
	packed := b.packed(unit)
	for ; n > 0; n -= int64(len(unit)) {
		b.raw(packed)
	}
}

func (b *bomb) close() (sum []byte) {
	b.t.Helper()
	must(b.t, b.f.Close())
	return b.sum.Sum(nil)
}

// tarHeader is a header of that many bytes, of a kind that archive/tar would
// not write.
func tarHeader(typ byte, name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	if size >= 1<<33 {
		h[124] = 0x80
		bits.BigEndian.PutUint64(h[128:], uint64(size))
	}
	copy(h[136:], "14524714220\x00        ")
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// The names of the forged set.
const (
	forgedTime     = "20231114T221320Z"
	forgedVolume   = "duplicity-full." + forgedTime + ".vol1.difftar.gz"
	forgedSigtar   = "duplicity-full-signatures." + forgedTime + ".sigtar.gz"
	forgedManifest = "duplicity-full." + forgedTime + ".manifest"
	forgedIndex    = "dupfs-index." + forgedTime + ".gz"
)

// emptySignature is one of no blocks of 512 bytes.
const emptySignature = "rs\x016\x00\x00\x02\x00\x00\x00\x00\x08"

// forge makes an archive of one set by hand; parts that are nil are sound ones,
// with a file "kept".
func (w *world) forge(volume, sigtar func(b *bomb), manifest func(b *bomb, sum []byte), index func(b *bomb)) {
	w.t.Helper()
	t := w.t.(*testing.T)
	w.sh("rm -rf archive home/.cache out; mkdir archive")
	if volume == nil {
		volume = func(b *bomb) {
			member(b, tar.TypeDir, "snapshot/", 0, "")
			member(b, tar.TypeReg, "snapshot/kept", 5, "kept\n")
			_, _ = b.Write(make([]byte, 1024))
		}
	}
	if sigtar == nil {
		sigtar = func(b *bomb) {
			member(b, tar.TypeDir, "snapshot/", 0, "")
			member(b, tar.TypeReg, "signature/kept", int64(len(emptySignature)), emptySignature)
			_, _ = b.Write(make([]byte, 1024))
		}
	}
	if manifest == nil {
		manifest = func(b *bomb, sum []byte) {
			fmt.Fprintf(b, "Volume 1:\n    StartingPath   .  \n    EndingPath     zzz  \n    Hash SHA1 %x\n", sum)
		}
	}
	b := w.bomb(forgedVolume)
	volume(b)
	sum := b.close()
	b = w.bomb(forgedSigtar)
	sigtar(b)
	b.close()
	b = w.bomb(forgedManifest)
	manifest(b, sum)
	b.close()
	if index != nil {
		b = w.bomb(forgedIndex)
		b.sum = sha256.New()
		index(b)
		isum := b.close()
		fi, err := os.Stat(w.path("archive", forgedIndex))
		must(t, err)
		text := readFile(t, w.path("archive", forgedManifest))
		line := fmt.Sprintf("Hostname x\nLocaldir x\nDupfs-Index %x %d\n", isum, fi.Size())
		must(t, os.WriteFile(w.path("archive", forgedManifest), append([]byte(line), text...), 0o600))
	}
}

// member writes a tar member, and whole blocks of its body.
func member(b *bomb, typ byte, name string, size int64, body string) {
	pad := (512 - len(body)%512) % 512
	_, _ = b.Write(append(append(tarHeader(typ, name, size), body...), make([]byte, pad)...))
}

func record(key, value string) string {
	n := len(key) + len(value) + 3
	for len(strconv.Itoa(n))+len(key)+len(value)+3 != n {
		n = len(strconv.Itoa(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// bombs are archives that are much more than they seem.
func bombs(n int64) map[string]func(w *world) {
	mib := []byte(strings.Repeat("a", 1<<20))
	end := make([]byte, 1024)
	head := func(b *bomb) { member(b, tar.TypeDir, "snapshot/", 0, "") }
	return map[string]func(w *world){
		"sound": func(w *world) { w.forge(nil, nil, nil, nil) },
		"zeros after a volume's end": func(w *world) {
			w.forge(func(b *bomb) { head(b); _, _ = b.Write(end); b.repeat(nil, n) }, nil, nil, nil)
		},
		"noise after a volume's end": func(w *world) {
			w.forge(func(b *bomb) { head(b); b.repeat([]byte("no tar header, but very long"), n) }, nil, nil, nil)
		},
		"a sigtar of zeros": func(w *world) {
			w.forge(nil, func(b *bomb) { head(b); _, _ = b.Write(end); b.repeat(nil, n) }, nil, nil)
		},
		"an endless signature": func(w *world) {
			w.forge(nil, func(b *bomb) {
				head(b)
				_, _ = b.Write(tarHeader(tar.TypeReg, "signature/kept", n+12))
				_, _ = b.Write([]byte(emptySignature))
				b.repeat(mib, n)
			}, nil, nil)
		},
		"an endless name": func(w *world) {
			w.forge(func(b *bomb) { _, _ = b.Write(tarHeader('L', "././@LongLink", n)); b.repeat(mib, n) },
				func(b *bomb) { _, _ = b.Write(tarHeader('L', "././@LongLink", n)); b.repeat(mib, n) }, nil, nil)
		},
		"an endless pax header": func(w *world) {
			pax := func(b *bomb) { _, _ = b.Write(tarHeader('x', "pax", n)); b.repeat(mib, n) }
			w.forge(pax, pax, nil, nil)
		},
		"a pax header as long as may be": func(w *world) {
			pax := func(b *bomb) {
				_, _ = b.Write(tarHeader('x', "pax", 64<<20))
				b.repeat([]byte(record("SCHILY.xattr.user.a", strings.Repeat("v", 227))), 64<<20)
				b.repeat(mib, n)
			}
			w.forge(pax, pax, nil, nil)
		},
		"an endless pax record": func(w *world) {
			pax := func(b *bomb) {
				_, _ = b.Write(tarHeader('x', "pax", n))
				fmt.Fprintf(b, "%d DUPFS.data=", n)
				b.repeat(mib, n)
			}
			w.forge(pax, pax, nil, nil)
		},
		"pax records without end": func(w *world) {
			pax := func(b *bomb) {
				_, _ = b.Write(tarHeader('x', "pax", n))
				b.repeat([]byte(record("SCHILY.xattr.user.a", strings.Repeat("v", 227))), n)
			}
			w.forge(pax, pax, nil, nil)
		},
		"extended headers without end": func(w *world) {
			one := append(tarHeader('x', "pax", 512), record("path", strings.Repeat("p", 502))...)
			pax := func(b *bomb) { b.repeat(one, n) }
			w.forge(pax, pax, nil, nil)
		},
		"a manifest of one line": func(w *world) {
			w.forge(nil, nil, func(b *bomb, _ []byte) { b.repeat(mib, n) }, nil)
		},
		"a manifest of zeros": func(w *world) {
			w.forge(nil, nil, func(b *bomb, _ []byte) { b.repeat(nil, n) }, nil)
		},
		"a manifest of volumes": func(w *world) {
			w.forge(nil, nil, func(b *bomb, _ []byte) {
				var text bytes.Buffer
				for i := range 100_000 {
					fmt.Fprintf(&text, "Volume %d:\n    StartingPath   %s  \n    EndingPath     %[2]s  \n    Hash SHA1 %040x\n", i+1, strings.Repeat("long/", 100), i)
				}
				_, _ = b.Write(text.Bytes())
			}, nil)
		},
		"a manifest of as many volumes as may be": func(w *world) {
			w.forge(nil, nil, func(b *bomb, sum []byte) {
				var text bytes.Buffer
				for i := range 1 << 18 {
					fmt.Fprintf(&text, "Volume %d:\n    StartingPath   .  \n    EndingPath     zzz  \n    Hash SHA1 %x\n", i+1, sum)
				}
				_, _ = b.Write(text.Bytes())
			}, nil)
		},
		"a manifest of file lines": func(w *world) {
			w.forge(nil, nil, func(b *bomb, sum []byte) {
				fmt.Fprintf(b, "Hostname x\nLocaldir x\nFilelist %d\n", 1<<30)
				b.repeat([]byte("    new        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"), n/4)
				fmt.Fprintf(b, "Volume 1:\n    StartingPath   .  \n    EndingPath     zzz  \n    Hash SHA1 %x\n", sum)
			}, nil)
		},
		"an index of zeros": func(w *world) { w.forge(nil, nil, nil, func(b *bomb) { b.repeat(nil, n) }) },
		"an index with a frame of gigabytes": func(w *world) {
			w.forge(nil, nil, nil, func(b *bomb) {
				_, _ = b.Write(indexHead('E', uint64(n)))
				b.repeat(mib, n)
			})
		},
		"an index with a layout of millions of chunks": func(w *world) {
			w.forge(nil, nil, nil, func(b *bomb) {
				const body = 60 << 20
				chunks := uint64(body/18 - 10)
				_, _ = b.Write(indexHead('V', body))
				v := []byte{1, byte(len(forgedVolume))}
				v = append(append(v, forgedVolume...), 0, 0)
				v = append(v, 1, 2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)
				v = bits.AppendUvarint(v, chunks)
				_, _ = b.Write(v)
				b.repeat(append([]byte{1, 1}, make([]byte, 16)...), body)
			})
		},
		"an index of attributes": func(w *world) {
			w.forge(nil, nil, nil, func(b *bomb) {
				const body = 60 << 20
				_, _ = b.Write(indexHead('E', body))
				v := []byte{0, 0}
				v = bits.AppendUvarint(v, 2|1<<3|1<<8) // a directory with attributes
				v = append(v, 0)
				v = bits.AppendUvarint(v, 1<<14)
				_, _ = b.Write(v)
				b.repeat([]byte{1, 'a', 0}, body)
			})
		},
		"an index of extents": func(w *world) {
			w.forge(nil, nil, nil, func(b *bomb) {
				const body = 4 << 20
				_, _ = b.Write(indexHead('E', body))
				v := []byte{0, 0}
				v = bits.AppendUvarint(v, 1|1<<3|1<<10)
				v = append(v, 0)
				v = bits.AppendUvarint(v, 1<<20)
				_, _ = b.Write(v)
				b.repeat([]byte{1, 1}, body)
			})
		},
		"a name of 100,000 directories": func(w *world) {
			deep := strings.Repeat("d/", 100_000)
			rec := record("path", "snapshot/"+deep+"f")
			sig := record("path", "signature/"+deep+"f")
			w.forge(func(b *bomb) {
				head(b)
				member(b, 'x', "pax", int64(len(rec)), rec)
				member(b, tar.TypeReg, "snapshot/f", 5, "deep\n")
				_, _ = b.Write(end)
			}, func(b *bomb) {
				head(b)
				member(b, 'x', "pax", int64(len(sig)), sig)
				member(b, tar.TypeReg, "signature/f", 12, emptySignature)
				_, _ = b.Write(end)
			}, nil, nil)
		},
		"a hundred names of a MiB": func(w *world) {
			names := func(kind string, body string) func(b *bomb) {
				return func(b *bomb) {
					head(b)
					for i := range 100 {
						rec := record("path", fmt.Sprintf("%s/%s%04d", kind, strings.Repeat("d/", 1<<19-100), i))
						member(b, 'x', "pax", int64(len(rec)), rec)
						member(b, tar.TypeReg, kind+"/f", int64(len(body)), body)
					}
					_, _ = b.Write(end)
				}
			}
			w.forge(names("snapshot", "deep\n"), names("signature", emptySignature), nil, nil)
		},
		"names of 32,000 directories": func(w *world) {
			names := func(kind string, body string) func(b *bomb) {
				return func(b *bomb) {
					head(b)
					for i := range 3 {
						rec := record("path", fmt.Sprintf("%s/%d/%sf", kind, i, strings.Repeat("d/", 32_000)))
						member(b, 'x', "pax", int64(len(rec)), rec)
						member(b, tar.TypeReg, kind+"/f", int64(len(body)), body)
					}
					_, _ = b.Write(end)
				}
			}
			w.forge(names("snapshot", "deep\n"), names("signature", emptySignature), nil, nil)
		},
		"a file of noise that is repeated": func(w *world) {
			noise := make([]byte, 32<<10)
			_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
			w.forge(func(b *bomb) {
				head(b)
				_, _ = b.Write(tarHeader(tar.TypeReg, "snapshot/kept", n))
				b.repeat(noise, n)
				_, _ = b.Write(end)
			}, nil, nil, nil)
		},
		"a hole of exabytes": func(w *world) {
			rec := record("DUPFS.data", "4611686018427387000+5") + record("DUPFS.size", "4611686018427387005")
			w.forge(func(b *bomb) {
				head(b)
				member(b, 'x', "pax", int64(len(rec)), rec)
				member(b, tar.TypeReg, "snapshot/kept", 5, "kept\n")
				_, _ = b.Write(end)
			}, func(b *bomb) {
				head(b)
				member(b, 'x', "pax", int64(len(rec)), rec)
				member(b, tar.TypeReg, "signature/kept", 12, emptySignature)
				_, _ = b.Write(end)
			}, nil, nil)
		},
		"a link of half a MiB": func(w *world) {
			link := func(b *bomb) {
				head(b)
				rec := record("linkpath", strings.Repeat("kept/", 100_000))
				member(b, 'x', "pax", int64(len(rec)), rec)
				member(b, tar.TypeSymlink, "snapshot/kept", 0, "")
				_, _ = b.Write(end)
			}
			w.forge(link, link, nil, nil)
		},
	}
}

// indexHead is the beginning of an index, and of a frame of n bytes.
func indexHead(tag byte, n uint64) []byte {
	times := forgedTime
	b := append([]byte("DUPFSIX1"), byte(len(times)))
	b = append(append(b, times...), tag)
	return bits.AppendUvarint(b, n)
}

// Whatever a stored file unfolds to: memory is bounded, there is a result or a
// clear error in bounded time, and nothing is written outside the target.
func TestBombs(t *testing.T) {
	n, long := int64(bombSize), false
	if v := os.Getenv(bombsVariable); v != "" {
		gib, err := strconv.ParseInt(v, 10, 64)
		must(t, err)
		n, long = gib<<10, true
	}
	limit := bombTime * time.Duration(n) / bombSize
	w := newWorld(t)
	w.sh("mkdir src; echo x > src/file")
	url := w.url("archive")
	commands := [][]string{{"ls", "-lR", url}, {"restore", url, "out"}, {"status", url}}
	if long {
		commands = append(commands, [][]string{
			{"find", url, "*"}, {"verify", url}, {"verify", "--level", "list", url}, {"verify", "--level", "volumes", url},
			{"doctor", "--deep", url}, {"index", url}, {"cat", url, "kept"}, {"history", url, "kept"}, {"tar", url},
			{"collection-status", url}, {"list-current-files", url}, {"--allow-source-mismatch", "src", url},
			{"compact", url}, {"replicate", url, w.url("second")}, {"doctor", "--repair", url}, {"cleanup", "--force", url}}...)
	}
	for name, make := range bombs(n << 20) {
		t.Run(name, func(t *testing.T) {
			w.t = t
			make(w)
			for _, c := range commands {
				if !long {
					w.sh("rm -rf home/.cache")
				}
				w.harmless(limit, append(c, "--no-encryption"))
			}
			w.sh("rm -rf out second")
		})
	}
	w.t = t
}

// harmless runs dupfs on what somebody has made to harm it.
func (w *world) harmless(limit time.Duration, args []string) {
	w.t.Helper()
	began := time.Now()
	r, mib := w.peakWithin(limit, args...)
	took := time.Since(began)
	if testing.Verbose() {
		w.t.Logf("%s: %-10.10s exit %d, %3d MiB, %4.1f s: %.400s", w.t.Name(), strings.Join(args, " "), r.code, mib, took.Seconds(), printable(strings.SplitN(r.stderr, "\n", 2)[0]))
	}
	if mib > bombMemory {
		w.t.Errorf("%.200s: %d MiB", r.line, mib)
	}
	if took > limit {
		w.t.Errorf("%.200s: %v", r.line, took)
	}
	if r.code < 0 || strings.Contains(r.stderr, "goroutine ") || r.code > 0 && !strings.Contains(r.stderr, "dupfs: ") {
		w.t.Errorf("%.200s: exit %d\n%.2000s", r.line, r.code, r.stderr)
	}
	if len(r.stderr) > 1<<20 {
		w.t.Errorf("%.200s: %d bytes of messages", r.line, len(r.stderr))
	}
	if left, _ := filepath.Glob(w.path("tmp", "*")); len(left) > 0 {
		w.t.Errorf("%.200s left %v", r.line, left)
	}
}
