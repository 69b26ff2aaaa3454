package backends

import (
	"context"
	"errors"
	"io"
)

// Wrapper has every method that a wrapper passes through.
type Wrapper interface {
	Backend
	Stater
	Exclusive
	Tierer
	Doubtful
	io.Closer
	// Healer returns what makes damaged files whole, or nil.
	Healer() Healer
}

type closer interface {
	Backend
	Doubtful
	io.Closer
	Healer() Healer
}

// Expose returns w with those optional interfaces only that b has: a wrapper
// must not promise what the store cannot do.
func Expose(w Wrapper, b Backend) Backend {
	_, s := b.(Stater)
	_, e := b.(Exclusive)
	_, t := b.(Tierer)
	switch {
	case s && e && t:
		return w
	case s && e:
		return struct {
			closer
			Stater
			Exclusive
		}{w, w, w}
	case s && t:
		return struct {
			closer
			Stater
			Tierer
		}{w, w, w}
	case e && t:
		return struct {
			closer
			Exclusive
			Tierer
		}{w, w, w}
	case s:
		return struct {
			closer
			Stater
		}{w, w}
	case e:
		return struct {
			closer
			Exclusive
		}{w, w}
	case t:
		return struct {
			closer
			Tierer
		}{w, w}
	}
	return struct{ closer }{w}
}

// inner is a Backend, its optional interfaces at hand. Those that it does not
// have return errors.ErrUnsupported; expose keeps them from being called.
type inner struct{ Backend }

func (b inner) Stat(ctx context.Context, name string) (File, error) {
	if s, ok := b.Backend.(Stater); ok {
		return s.Stat(ctx, name)
	}
	return File{}, errors.ErrUnsupported
}

func (b inner) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	if s, ok := b.Backend.(Exclusive); ok {
		return s.PutNew(ctx, name, r)
	}
	return errors.ErrUnsupported
}

func (b inner) SetTier(ctx context.Context, name, tier, priority string) error {
	if s, ok := b.Backend.(Tierer); ok {
		return s.SetTier(ctx, name, tier, priority)
	}
	return errors.ErrUnsupported
}

// Doubtful implements Doubtful.
func (b inner) Doubtful() bool { return !Excludes(b.Backend) }

func (b inner) Close() error { return Close(b.Backend) }

func (b inner) Healer() Healer { return HealerOf(b.Backend) }
