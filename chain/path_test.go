package chain

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for in, want := range map[string]Path{
		"": "", ".": "", "./": "", "/": "", "./.": "", "a": "a", "a/": "a", "/a": "a", "a//b": "a/b",
		"a/./b": "a/b", "./a/b/": "a/b", "...": "...", "a/..b": "a/..b", "a b/\xff": "a b/\xff", "a\n": "a\n",
	} {
		if got, ok := ParsePath(in); !ok || got != want {
			t.Errorf("ParsePath(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"..", "a/..", "../a", "a/../b", "a\x00", "/.."} {
		if got, ok := ParsePath(in); ok {
			t.Errorf("ParsePath(%q) = %q, want it refused", in, got)
		}
	}
}

func TestPathCompare(t *testing.T) {
	// A parent before its children, components as bytes.
	order := []Path{"", "B", "a", "a/b", "a/b/c", "a/x", "a ", "a b", "a-b", "a.b", "a0", "a\x7f", "a\xff", "b"}
	for i, p := range order {
		for j, q := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%q.Compare(%q) = %d, want %d", p, q, got, want)
			}
			if got := slices.Compare(p.Components(), q.Components()); got != want {
				t.Errorf("components of %q and %q compare as %d, want %d", p, q, got, want)
			}
		}
	}
}

func TestPathParts(t *testing.T) {
	tests := []struct {
		p, parent Path
		base, str string
	}{
		{"", "", "", "."},
		{"a", "", "a", "a"},
		{"a/b/c", "a/b", "c", "a/b/c"},
	}
	for _, test := range tests {
		if test.p.Parent() != test.parent || test.p.Base() != test.base || test.p.String() != test.str {
			t.Errorf("%q: parent %q, base %q, string %q", test.p, test.p.Parent(), test.p.Base(), test.p)
		}
		if test.p != Root && test.p.Parent().Join(test.p.Base()) != test.p {
			t.Errorf("%q is not its parent joined with its base", test.p)
		}
	}
}

func TestPathHas(t *testing.T) {
	tests := []struct {
		p, q Path
		want bool
	}{
		{"", "", true}, {"", "a", true}, {"a", "a", true}, {"a", "a/b", true}, {"a", "ab", false},
		{"a", "", false}, {"a/b", "a", false}, {"a/b", "a/b/c/d", true}, {"b", "a/b", false},
	}
	for _, test := range tests {
		if got := test.p.Has(test.q); got != test.want {
			t.Errorf("%q.Has(%q) = %v", test.p, test.q, got)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("a/b", "a b")
	f.Add("./x//y/", "..")
	f.Fuzz(func(t *testing.T, a, b string) {
		p, ok := ParsePath(a)
		if !ok {
			return
		}
		if again, ok := ParsePath(string(p)); !ok || again != p {
			t.Fatalf("%q, parsed again, is %q", p, again)
		}
		for _, c := range p.Components() {
			if c == "" || c == "." || c == ".." || strings.ContainsAny(c, "/\x00") {
				t.Fatalf("%q has the component %q", p, c)
			}
		}
		q, ok := ParsePath(b)
		if !ok {
			return
		}
		if got, want := p.Compare(q), slices.Compare(p.Components(), q.Components()); got != want {
			t.Fatalf("%q.Compare(%q) = %d, want %d", p, q, got, want)
		}
	})
}
