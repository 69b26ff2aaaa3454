package mem_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
)

func TestContract(t *testing.T) {
	backendtest.Run(t, func(testing.TB) backends.Backend { return mem.New() }, backendtest.Options{Objects: 12_000, Sums: true})
}

func TestTiers(t *testing.T) {
	ctx, b := t.Context(), mem.New()
	b.PutTier("Archive")
	if err := b.Put(ctx, "v", bytes.NewReader([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(ctx, "v", 0, -1); !errors.Is(err, backends.ErrArchived) {
		t.Fatalf("an archived file was opened: %v", err)
	}
	if err := b.SetTier(ctx, "v", "Hot", "Standard"); err != nil {
		t.Fatal(err)
	}
	f, _ := b.Stat(ctx, "v")
	if !f.Archived || !f.Rehydrating {
		t.Errorf("while it is rehydrated: %+v", f)
	}
	b.FinishRehydration()
	r, err := b.Open(ctx, "v", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(r); string(got) != "at" {
		t.Errorf("got %q", got)
	}
	if f, _ := b.Stat(ctx, "v"); f.Archived || f.Rehydrating || f.Tier != "Hot" {
		t.Errorf("afterwards: %+v", f)
	}
}
