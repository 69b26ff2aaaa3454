package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/mem"
)

func read(ctx context.Context, b backends.Backend) ([]byte, error) {
	r, err := b.Open(ctx, "a", 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Each fault does what its name says: the tests of others stand on it.
func TestFaulty(t *testing.T) {
	data := []byte("0123456789")
	for _, c := range []struct {
		fault Fault
		got   string
		err   bool
	}{
		{Fault{Op: Get, Kind: Fail}, "", true},
		{Fault{Op: Get, Kind: Cut, At: 4}, "0123", false},
		{Fault{Op: Get, Kind: Cut}, "", false},
		{Fault{Op: Get, Kind: Break, At: 4}, "0123", true},
		{Fault{Op: Get, Kind: Stall, At: 4}, "0123", true},
		{Fault{Op: Get, Kind: Wrong, At: 4}, "0123556789", false},
		{Fault{Op: Get, Kind: Fail, Nth: 2}, "0123456789", false},
		{Fault{Op: Get, Name: "b", Kind: Fail}, "0123456789", false},
	} {
		m := mem.New()
		if err := m.Put(t.Context(), "a", bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		f := NewFaulty(m, c.fault)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		if c.fault.Kind == Stall {
			cancel2 := cancel
			time.AfterFunc(time.Millisecond, cancel2)
		}
		got, err := read(ctx, f)
		cancel()
		if string(got) != c.got || (err != nil) != c.err {
			t.Errorf("%+v: %q, %v", c.fault, got, err)
		}
		if c.fault.Nth < 2 && c.fault.Kind != Stall {
			if got, err := read(t.Context(), f); string(got) != string(data) || err != nil {
				t.Errorf("%+v, second time: %q, %v", c.fault, got, err)
			}
		}
	}
}

func TestFaultyPut(t *testing.T) {
	ctx := t.Context()
	for kind, stored := range map[Kind]bool{Fail: false, Lost: true, Break: false} {
		m := mem.New()
		f := NewFaulty(m, Fault{Op: Put, Kind: kind, At: 3})
		if err := f.Put(ctx, "a", bytes.NewReader([]byte("abcdef"))); !errors.Is(err, backends.ErrTransient) {
			t.Errorf("%v: %v", kind, err)
		}
		if _, err := m.Stat(ctx, "a"); (err == nil) != stored {
			t.Errorf("%v: stored %v", kind, err)
		}
		if f.Hits() != 1 {
			t.Errorf("%v: %d hits", kind, f.Hits())
		}
	}
}

func TestFaultyStaleList(t *testing.T) {
	ctx, m := t.Context(), mem.New()
	f := NewFaulty(m, Fault{Op: List, Kind: Stale, Nth: 2})
	sizes := []int{}
	for _, name := range []string{"a", "b", "c"} {
		m.Put(ctx, name, bytes.NewReader(nil))
		files, err := f.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(files))
	}
	if sizes[0] != 1 || sizes[1] != 1 || sizes[2] != 3 {
		t.Errorf("listings had %v files", sizes)
	}
}

func TestCount(t *testing.T) {
	ctx := t.Context()
	c := NewCount(mem.New())
	c.Put(ctx, "a", bytes.NewReader([]byte("abcdef")))
	r, err := c.Open(ctx, "a", 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(r)
	c.List(ctx)
	c.Stat(ctx, "a")
	c.SetTier(ctx, "a", "Hot", "")
	c.Delete(ctx, "a")
	c.PutNew(ctx, "b", bytes.NewReader([]byte("x")))
	for op, want := range map[string]Tally{
		Put: {1, 6}, Get: {1, 3}, List: {1, 0}, Stat: {1, 0}, SetTier: {1, 0}, Delete: {1, 0}, PutNew: {1, 1},
	} {
		if got := c.Of(op); got != want {
			t.Errorf("%s: %+v, want %+v", op, got, want)
		}
	}
	if got := c.File(Get, "a"); got != (Tally{1, 3}) {
		t.Errorf("get of a: %+v", got)
	}
	if got := c.Total(); got != (Tally{7, 10}) {
		t.Errorf("total: %+v", got)
	}
	c.Reset()
	if got := c.Total(); got != (Tally{}) {
		t.Errorf("after Reset: %+v", got)
	}
}

// The contract through the counter, which must change nothing.
func TestContractBehindCount(t *testing.T) {
	Run(t, func(testing.TB) backends.Backend { return NewCount(mem.New()) }, Options{})
}
