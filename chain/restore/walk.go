package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"dupfs/chain"
)

// pageLen is the number of entries of a directory held at a time.
const pageLen = 256

// errPage ends a page.
var errPage = errors.New("page is full")

// lookup finds path in a tree. fs.ErrNotExist if it has none.
func lookup(ctx context.Context, t chain.Tree, path chain.Path) (chain.Node, error) {
	n, err := t.Root(ctx)
	if err != nil {
		return n, err
	}
	for _, name := range path.Components() {
		if n.Type != chain.Dir {
			return n, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		if n, err = t.Lookup(ctx, n.Dir, name); err != nil {
			return n, fmt.Errorf("%s: %w", path, err)
		}
	}
	return n, nil
}

// pager reads a directory of a tree by pages, so that no listing stays open
// while what is below an entry is worked on.
type pager struct {
	tree chain.Tree
	dir  uint64
	page []chain.Node
	next int
	last string
	end  bool
	err  error // comes after the page
}

// Next returns the next child; false at the end.
func (p *pager) Next(ctx context.Context) (chain.Node, bool, error) {
	if p.next == len(p.page) {
		if p.fill(ctx); len(p.page) == 0 {
			return chain.Node{}, false, p.err
		}
	}
	n := p.page[p.next]
	p.page[p.next] = chain.Node{}
	p.next++
	return n, true, nil
}

// fill reads the next page. What comes before an error counts.
func (p *pager) fill(ctx context.Context) {
	p.page, p.next = p.page[:0], 0
	if p.end {
		return
	}
	err := p.tree.ReadDir(ctx, p.dir, p.last, true, func(n chain.Node) error {
		p.page = append(p.page, n)
		if len(p.page) == pageLen {
			return errPage
		}
		return nil
	})
	if !errors.Is(err, errPage) {
		p.end, p.err = true, err
		return
	}
	last := p.page[len(p.page)-1].Name
	if last <= p.last {
		p.page = p.page[:0]
		p.end, p.err = true, fmt.Errorf("directory listing goes back from %q to %q", p.last, last)
	}
	p.last = last
}

// checkName refuses names that are not single components.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("bad name %q in the archive", name)
	}
	return nil
}
