package main

import (
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	g := appGrammar()
	tests := []struct{ in, want string }{
		{"src file:///t", "backup -- src file:///t"},
		{"file:///t dir", "restore -- file:///t dir"},
		{"full src file:///t --volsize 5", "full --volsize=5 -- src file:///t"},
		{"--volsize=5 src file:///t --no-enc", "backup --volsize=5 --no-encryption -- src file:///t"},
		{"f src file:///t", "full -- src file:///t"},
		{"inc src file:///t", "incremental -- src file:///t"},
		{"f file:///t", "backup -- f file:///t"},
		{"col file:///t", "collection-status -- file:///t"},
		{"list file:///t -t 3D", "list-current-files --time=3D -- file:///t"},
		{"ls -lR file:///t a/b", "ls --long --recursive -- file:///t a/b"},
		{"-v9 src file:///t", "backup --verbosity=9 -- src file:///t"},
		{"-v 9 src file:///t", "backup --verbosity=9 -- src file:///t"},
		{"mount file:///t /mnt -f", "mount --foreground -- file:///t /mnt"},
		{"src -- file:///t", "backup -- src file:///t"},
		{"--include a --exclude b --include c src file:///t", "backup --include=a --exclude=b --include=c -- src file:///t"},
		{"", ""},
		{"ls", "ls"},
	}
	for _, tt := range tests {
		got, err := g.arrange(strings.Fields(tt.in))
		if err != nil || !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("%q: got %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestArrangeRefuses(t *testing.T) {
	g := appGrammar()
	tests := []struct{ in, text string }{
		{"re file:///t", "not unique"},
		{"src dst", "no such command: src"},
		{"file:///a file:///b", "no such command"},
		{"src file:///t --nonsense", "no such option: --nonsense"},
		{"src file:///t --no-encryption=yes", "takes no value"},
		{"src file:///t --volsize", "needs a value"},
		{"src file:///t --incl x", "not unique"},
		{"src file:///t -Z", "no such option: -Z"},
	}
	for _, tt := range tests {
		got, err := g.arrange(strings.Fields(tt.in))
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q: got %q, %v; want an error with %q", tt.in, got, err, tt.text)
		}
	}
}
