package backends_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
)

// retried returns a store that fails as told behind Retry, and the failed
// attempts that were reported.
func retried(o backends.RetryOptions, faults ...backendtest.Fault) (backends.Backend, *mem.Backend, *[]backends.Attempt) {
	m := mem.New()
	var log []backends.Attempt
	o.Notify = func(a backends.Attempt) { log = append(log, a) }
	return backends.Retry(backendtest.NewFaulty(m, faults...), o), m, &log
}

func get(ctx context.Context, b backends.Backend, name string, off, n int64) ([]byte, error) {
	r, err := b.Open(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func store(t *testing.T, b backends.Backend, name string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func TestRetryTriesBoundedly(t *testing.T) {
	for _, op := range []string{backendtest.List, backendtest.Get, backendtest.Put, backendtest.PutNew, backendtest.Delete, backendtest.Stat, backendtest.SetTier} {
		for fails, want := range map[int]bool{0: true, 1: true, 4: true, 5: false, -1: false} {
			t.Run(fmt.Sprint(op, fails), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fault := backendtest.Fault{Op: op, Count: fails}
					if fails == 0 {
						fault.Op = "none"
					}
					b, m, log := retried(backends.RetryOptions{}, fault)
					store(t, m, "a", []byte("data"))
					start := time.Now()
					err := call(t.Context(), b, op)
					took := time.Since(start)
					if (err == nil) != want {
						t.Errorf("%v", err)
					}
					tries := fails
					if !want {
						tries = 5
						if !errors.Is(err, backends.ErrTransient) || !strings.Contains(err.Error(), "(tried 5 times)") {
							t.Errorf("gave up with %v", err)
						}
					}
					if len(*log) != tries {
						t.Errorf("%d failed attempts were reported, want %d", len(*log), tries)
					}
					// 1+2+4+8 s at most, half of that at least.
					if took > 15*time.Second || tries == 5 && took < 7*time.Second {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
}

func call(ctx context.Context, b backends.Backend, op string) error {
	var err error
	switch op {
	case backendtest.List:
		_, err = b.List(ctx)
	case backendtest.Get:
		_, err = get(ctx, b, "a", 0, -1)
	case backendtest.Put:
		err = b.Put(ctx, "b", strings.NewReader("x"))
	case backendtest.PutNew:
		err = b.(backends.Exclusive).PutNew(ctx, "b", strings.NewReader("x"))
	case backendtest.Delete:
		err = b.Delete(ctx, "a")
	case backendtest.Stat:
		_, err = b.(backends.Stater).Stat(ctx, "a")
	case backendtest.SetTier:
		err = b.(backends.Tierer).SetTier(ctx, "a", "Cool", "")
	}
	return err
}

func TestRetryOnlyTransient(t *testing.T) {
	for _, err := range []error{backends.ErrAuth, backends.ErrNoSpace, backends.ErrArchived, fs.ErrNotExist, errors.New("other")} {
		b, _, log := retried(backends.RetryOptions{}, backendtest.Fault{Op: "put", Err: err})
		if got := b.Put(t.Context(), "x", strings.NewReader("x")); !errors.Is(got, err) {
			t.Errorf("%v", got)
		}
		if len(*log) > 0 {
			t.Errorf("%v was tried again", err)
		}
	}
}

type busy time.Duration

func (b busy) Error() string             { return "busy" }
func (b busy) Unwrap() error             { return backends.ErrTransient }
func (b busy) RetryAfter() time.Duration { return time.Duration(b) }

func TestRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{
		17 * time.Second: 17 * time.Second,
		3 * time.Hour:    5 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			b, _, log := retried(backends.RetryOptions{}, backendtest.Fault{Op: "put", Err: busy(after)})
			start := time.Now()
			if err := b.Put(t.Context(), "x", strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d != want || (*log)[0].Wait != want {
				t.Errorf("asked for %v: waited %v, reported %v", after, d, (*log)[0].Wait)
			}
		})
	}
}

func TestRetryWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := retried(backends.RetryOptions{Delay: time.Hour, MaxDelay: time.Hour}, backendtest.Fault{Op: "list"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := b.List(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("returned after %v", d)
		}
	})
}

// A body that breaks is read on from where it broke.
func TestRetryResumesBody(t *testing.T) {
	data := backendtest.Data(1, 5<<20)
	size := int64(len(data))
	for _, kind := range []backendtest.Kind{backendtest.Break, backendtest.Stall} {
		for _, at := range []int64{0, 1, 1000, size - 1} {
			for _, r := range [][2]int64{{0, -1}, {10, -1}, {10, 2000}, {0, size}, {size, -1}, {5, 0}} {
				t.Run(fmt.Sprint(kind, at, r), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := mem.New()
						store(t, m, "a", data)
						c := backendtest.NewCount(m)
						b := backends.Retry(backendtest.NewFaulty(c, backendtest.Fault{Op: "get", Kind: kind, At: at}), backends.RetryOptions{})
						got, err := get(t.Context(), b, "a", r[0], r[1])
						want := data[r[0]:]
						if r[1] >= 0 {
							want = want[:r[1]]
						}
						if err != nil || !bytes.Equal(got, want) {
							t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
						}
						if n := c.Of("get").Bytes; n > int64(len(want)) {
							t.Errorf("%d bytes were read from the store for %d", n, len(want))
						}
					})
				})
			}
		}
	}
}

// An unexpected end is a broken body, whatever class it has.
func TestRetryUnexpectedEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _ := retried(backends.RetryOptions{}, backendtest.Fault{Op: "get", Kind: backendtest.Break, At: 3, Err: io.ErrUnexpectedEOF})
		store(t, m, "a", []byte("abcdef"))
		if got, err := get(t.Context(), b, "a", 0, -1); string(got) != "abcdef" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A connection that broke off once too often is not taken for the file's end.
func TestRetryGivesUpWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _ := retried(backends.RetryOptions{Tries: 2}, backendtest.Fault{Op: "get", Kind: backendtest.Break, At: 3, Count: -1,
			Err: fmt.Errorf("%w: cut: %w", backends.ErrTransient, io.ErrUnexpectedEOF)})
		store(t, m, "a", []byte("0123456789"))
		_, err := get(t.Context(), b, "a", 0, -1)
		if errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, backends.ErrTransient) || !strings.Contains(err.Error(), "cut") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryBodyGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Always after 10 bytes: little progress does not count.
		b, m, log := retried(backends.RetryOptions{}, backendtest.Fault{Op: "get", Kind: backendtest.Break, At: 10, Count: -1})
		data := backendtest.Data(2, 1000)
		store(t, m, "a", data)
		got, err := get(t.Context(), b, "a", 0, -1)
		if !errors.Is(err, backends.ErrTransient) || len(*log) != 5 {
			t.Errorf("%v after %d tries", err, len(*log))
		}
		if !bytes.Equal(got, data[:50]) {
			t.Errorf("%d bytes before", len(got))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// Always after 1 MiB: that does get there.
		b, m, _ := retried(backends.RetryOptions{}, backendtest.Fault{Op: "get", Kind: backendtest.Break, At: 1 << 20, Count: -1})
		data := backendtest.Data(2, 9<<20)
		store(t, m, "a", data)
		if got, err := get(t.Context(), b, "a", 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestRetryStall(t *testing.T) {
	for _, op := range []string{"list", "get", "put", "delete", "query"} {
		synctest.Test(t, func(t *testing.T) {
			b, m, log := retried(backends.RetryOptions{Timeout: 10 * time.Second}, backendtest.Fault{Op: op, Kind: backendtest.Stall})
			store(t, m, "a", []byte("data"))
			if err := call(t.Context(), b, op); err != nil {
				t.Errorf("%s: %v", op, err)
			}
			if len(*log) != 1 || !errors.Is((*log)[0].Err, backends.ErrTransient) || !strings.Contains((*log)[0].Err.Error(), "no answer for") {
				t.Errorf("%s: %+v", op, *log)
			}
		})
	}
}

// slowReader takes longer for its bytes than any timeout, but never stops.
type slowReader struct{ *bytes.Reader }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(20 * time.Second)
	return r.Reader.Read(p[:min(len(p), 10)])
}

func TestRetrySlowUploadIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, log := retried(backends.RetryOptions{Timeout: 5 * time.Second})
		err := b.Put(t.Context(), "a", struct{ io.ReadSeeker }{slowReader{bytes.NewReader(make([]byte, 1000))}})
		if err != nil || len(*log) > 0 {
			t.Errorf("%v, %v", err, *log)
		}
	})
}

// A reader that takes its time between Reads does not make the body fail.
func TestRetrySlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, log := retried(backends.RetryOptions{})
		store(t, m, "a", []byte("abc"))
		r, err := b.Open(t.Context(), "a", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 3 {
			time.Sleep(time.Hour)
			if n, err := r.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if len(*log) > 0 {
			t.Error(*log)
		}
	})
}

func TestRetryPutRewinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _ := retried(backends.RetryOptions{}, backendtest.Fault{Op: "put", Kind: backendtest.Break, At: 4, Count: 2})
		r := strings.NewReader("0123456789")
		r.Seek(3, io.SeekStart)
		if err := b.Put(t.Context(), "a", r); err != nil {
			t.Fatal(err)
		}
		if got, _ := get(t.Context(), m, "a", 0, -1); string(got) != "3456789" {
			t.Errorf("%q", got)
		}
	})
}

// What was done though the answer was lost counts as done.
func TestRetryLost(t *testing.T) {
	for _, op := range []string{"put", "putnew", "delete"} {
		synctest.Test(t, func(t *testing.T) {
			b, m, _ := retried(backends.RetryOptions{}, backendtest.Fault{Op: op, Kind: backendtest.Lost})
			store(t, m, "a", []byte("data"))
			if err := call(t.Context(), b, op); err != nil {
				t.Errorf("%s: %v", op, err)
			}
		})
	}
}

func TestRetryPutNewIsNotFooled(t *testing.T) {
	for stored, want := range map[string]bool{"mine": true, "theirs": false, "": false, "mine and more": false} {
		synctest.Test(t, func(t *testing.T) {
			b, m, _ := retried(backends.RetryOptions{}, backendtest.Fault{Op: "putnew", Kind: backendtest.Fail})
			store(t, m, "lock", []byte(stored))
			r := strings.NewReader("is mine")
			r.Seek(3, io.SeekStart)
			err := b.(backends.Exclusive).PutNew(t.Context(), "lock", r)
			if want && err != nil || !want && !errors.Is(err, fs.ErrExist) {
				t.Errorf("stored %q: %v", stored, err)
			}
		})
	}
	// Without a failure before, equal content is no excuse.
	m := mem.New()
	store(t, m, "lock", []byte("mine"))
	b := backends.Retry(m, backends.RetryOptions{})
	if err := b.(backends.Exclusive).PutNew(t.Context(), "lock", strings.NewReader("mine")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
}

func TestReadAfterClose(t *testing.T) {
	b, m, _ := retried(backends.RetryOptions{})
	store(t, m, "a", []byte("abc"))
	r, err := b.Open(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// What a driver has tried often enough is not tried again by Retry.
func TestTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		step := func() error {
			return backends.Try(t.Context(), backends.RetryOptions{Tries: 3}, "put", "a", func(context.Context) error {
				calls++
				return backends.ErrTransient
			})
		}
		err := step()
		if calls != 3 || !errors.Is(err, backends.ErrTransient) {
			t.Errorf("%d calls, %v", calls, err)
		}
		b, _, log := retried(backends.RetryOptions{}, backendtest.Fault{Op: "put", Count: -1, Err: err})
		if err := b.Put(t.Context(), "a", strings.NewReader("x")); !errors.Is(err, backends.ErrTransient) || len(*log) != 0 {
			t.Errorf("%v after %d more", err, len(*log))
		}
	})
}

// Wrappers have the optional interfaces of what they wrap, and no others.
func TestOptionalInterfaces(t *testing.T) {
	m := mem.New()
	type (
		b = backends.Backend
		s = backends.Stater
		e = backends.Exclusive
		x = backends.Tierer
	)
	for i, in := range []b{
		struct{ b }{m}, struct {
			b
			s
		}{m, m}, struct {
			b
			e
		}{m, m}, struct {
			b
			s
			e
		}{m, m, m},
		struct {
			b
			x
		}{m, m}, struct {
			b
			s
			x
		}{m, m, m}, struct {
			b
			e
			x
		}{m, m, m}, m,
	} {
		for _, w := range []b{backends.Retry(in, backends.RetryOptions{}), backends.Limit(in, rate.NewLimiter(1, 1), nil)} {
			_, hasS := w.(s)
			_, hasE := w.(e)
			_, hasX := w.(x)
			if hasS != (i&1 != 0) || hasE != (i&2 != 0) || hasX != (i&4 != 0) {
				t.Errorf("%d: Stater %v, Exclusive %v, Tierer %v", i, hasS, hasE, hasX)
			}
			if err := backends.Close(w); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		b := backends.Limit(m, rate.NewLimiter(1000, 100), rate.NewLimiter(2000, 100))
		data := backendtest.Data(1, 10_000)
		start := time.Now()
		store(t, b, "a", data)
		up := time.Since(start)
		got, err := get(t.Context(), b, "a", 0, -1)
		down := time.Since(start) - up
		if err != nil || !bytes.Equal(got, data) {
			t.Error(err)
		}
		if up < 9800*time.Millisecond || up > 10100*time.Millisecond || down < 4800*time.Millisecond || down > 5100*time.Millisecond {
			t.Errorf("10000 bytes went up in %v, down in %v", up, down)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Put(ctx, "b", bytes.NewReader(data)); err == nil {
			t.Error("the limiter outlasts its context")
		}
	})
}

// The contract holds behind the wrappers, and with a store that fails a lot.
func TestContractBehindRetry(t *testing.T) {
	patient := backends.RetryOptions{Tries: 50, Delay: time.Microsecond, MaxDelay: time.Microsecond}
	t.Run("Sound", func(t *testing.T) {
		backendtest.Run(t, func(testing.TB) backends.Backend { return backends.Retry(mem.New(), patient) }, backendtest.Options{})
	})
	t.Run("Faulty", func(t *testing.T) {
		seed := uint64(0)
		backendtest.Run(t, func(testing.TB) backends.Backend {
			seed++
			return backends.Retry(backendtest.NewRandom(mem.New(), seed, 0.2), patient)
		}, backendtest.Options{Retried: true, Large: 300_000})
	})
}
