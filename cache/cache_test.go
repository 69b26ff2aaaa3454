package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBlocksFillOnce(t *testing.T) {
	b := NewBlocks[int](1 << 20)
	var calls atomic.Int32
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			v, err := b.Get(t.Context(), 7, func(context.Context) ([]byte, error) {
				calls.Add(1)
				<-release
				return []byte("seven"), nil
			})
			if err != nil || string(v) != "seven" {
				t.Errorf("got %q, %v", v, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("filled %d times", n)
	}
}

func TestBlocksBudget(t *testing.T) {
	b := NewBlocks[int](100)
	for i := range 50 {
		b.Put(i, make([]byte, 30))
		if b.Used() > 100 {
			t.Fatalf("used %d of 100", b.Used())
		}
	}
	if _, ok := b.Peek(49); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := b.Peek(40); ok {
		t.Error("an old one stayed")
	}
	b.Put(49, make([]byte, 101))
	if _, ok := b.Peek(49); ok {
		t.Error("kept more than the budget")
	}
}

func TestBlocksErrorIsNotKept(t *testing.T) {
	b := NewBlocks[int](100)
	boom := errors.New("boom")
	if _, err := b.Get(t.Context(), 1, func(context.Context) ([]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	v, err := b.Get(t.Context(), 1, func(context.Context) ([]byte, error) { return []byte("x"), nil })
	if err != nil || string(v) != "x" {
		t.Errorf("got %q, %v", v, err)
	}
}

// A caller who gives up does not take the others with it, and the last one
// who gives up ends the work.
func TestBlocksCancel(t *testing.T) {
	b := NewBlocks[int](100)
	started, ended := make(chan struct{}), make(chan struct{})
	fill := func(ctx context.Context) ([]byte, error) {
		close(started)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	first, cancelFirst := context.WithCancel(t.Context())
	second, cancelSecond := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { _, err := b.Get(first, 1, fill); errs <- err }()
	<-started
	go func() { _, err := b.Get(second, 1, fill); errs <- err }()
	for { // until the second waits, too
		b.mu.Lock()
		f := b.fills[1]
		n := f.waiting
		b.mu.Unlock()
		if n == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancelFirst()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Fatal("the fill ended while somebody waited")
	default:
	}
	cancelSecond()
	<-errs
	<-ended
}

func TestDir(t *testing.T) {
	root := filepath.Join(t.TempDir(), "c")
	d, err := OpenDir(root, 1000)
	if err != nil {
		t.Fatal(err)
	}
	d.Put("a", []byte("alpha"))
	if v, ok := d.Get("a"); !ok || string(v) != "alpha" {
		t.Errorf("got %q, %v", v, ok)
	}
	d.Drop("a")
	if d.Has("a") {
		t.Error("dropped but there")
	}
	if info, _ := os.Stat(root); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	d.Put("big", make([]byte, 1001))
	if d.Has("big") {
		t.Error("kept more than the budget")
	}
}

func TestDirBudget(t *testing.T) {
	root := t.TempDir()
	d, err := OpenDir(root, 1000)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for i := range 10 {
		key := fmt.Sprint(i)
		d.Put(key, bytes.Repeat([]byte{byte(i)}, 100))
		os.Chtimes(d.path(key), old.Add(time.Duration(i)*time.Minute), old.Add(time.Duration(i)*time.Minute))
	}
	d.Get("0") // now the newest
	d.Put("new", make([]byte, 100))
	if d.Used() > 1000 {
		t.Errorf("used %d", d.Used())
	}
	if !d.Has("0") || !d.Has("new") || d.Has("1") {
		t.Errorf("0: %v, new: %v, 1: %v", d.Has("0"), d.Has("new"), d.Has("1"))
	}
}

// Two processes on one directory: neither's files are torn, and both count
// what is there.
func TestDirShared(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for w := range 4 {
		d, err := OpenDir(root, 5000)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range 200 {
				key := fmt.Sprint(i % 50)
				d.Put(key, bytes.Repeat([]byte(key), 100))
				if v, ok := d.Get(fmt.Sprint((i + w) % 50)); ok && !bytes.Equal(v, bytes.Repeat([]byte(fmt.Sprint((i+w)%50)), 100)) {
					t.Errorf("torn value of %d bytes", len(v))
				}
			}
		})
	}
	wg.Wait()
}

func TestDirUnwritable(t *testing.T) {
	root := t.TempDir()
	d, err := OpenDir(root, 1000)
	if err != nil {
		t.Fatal(err)
	}
	// A file where the shard's directory should be.
	os.WriteFile(filepath.Dir(d.path("a")), nil, 0o600)
	d.Put("a", []byte("x"))
	if d.Has("a") {
		t.Error("kept")
	}
	var none *Dir
	none.Put("a", nil)
	if _, ok := none.Get("a"); ok {
		t.Error("nil Dir has something")
	}
}
