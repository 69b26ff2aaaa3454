package chaintest

import (
	"strings"

	"dupfs/chain"
)

// Zoo returns a forest of three points with one of each kind: types, odd
// names, hard links, sparse files, modes, times before 1970. Devices are not
// in it, as only root can make them; Devices returns some.
func Zoo() *Forest {
	base := zooItems()
	second := append(base[:len(base):len(base)],
		File("docs/new.txt", "new at the second point\n"),
		File("docs/changed.txt", "second version, longer\n"),
		Link("links/rel", "../docs/new.txt"),
	)
	third := make([]Item, 0, len(second))
	for _, it := range second {
		if !chain.Path("deep").Has(it.Path) && it.Path != "docs/small.txt" {
			third = append(third, it)
		}
	}
	third = append(third, Dir("docs/small.txt"), File("docs/small.txt/inside", "was a file before\n"))
	return New(
		Point{Full: true, Items: base},
		Point{Items: second},
		Point{Items: third, Damage: "volume 2 is missing"},
	)
}

// zooItems are the items of the first point.
func zooItems() []Item {
	mode := func(m uint32) func(*chain.Entry) { return func(e *chain.Entry) { e.Mode = m } }
	mtime := func(s int64, ns int32) func(*chain.Entry) {
		return func(e *chain.Entry) { e.Mtime = chain.Time{Sec: s, Nsec: ns} }
	}
	hard := func(e *chain.Entry) { e.LinkGroup = 7 }
	big := strings.Repeat("0123456789abcdef", 200<<10/16) + "end"
	items := []Item{
		Dir("").With(mtime(1600000000, 5)),
		File("docs/small.txt", "hello\n"),
		File("docs/empty", ""),
		File("docs/changed.txt", "first version\n"),
		File("docs/big.bin", big),
		File("modes/setuid", "#!").With(mode(0o4755)),
		File("modes/setgid", "#!").With(mode(0o2755)),
		File("modes/none", "secret").With(mode(0)),
		Dir("modes/sticky").With(mode(0o1777)),
		Dir("modes/readonly").With(mode(0o555)),
		File("modes/readonly/in", "below a directory without write permission"),
		File("times/old", "before 1970").With(mtime(-1000, 999999999)),
		File("times/zero", "").With(mtime(0, 0)),
		File("times/far", "").With(mtime(4102444800, 1)),
		Dir("times/dir").With(mtime(1234567890, 987654321)),
		File("times/dir/file", "x"),
		Link("links/rel", "../docs/small.txt"),
		Link("links/abs", "/etc/passwd"),
		Link("links/dangling", "nowhere/at all"),
		Link("links/long", strings.Repeat("x", 255)+"/"+strings.Repeat("y", 255)).With(mtime(1500000000, 77)),
		Fifo("special/fifo"),
		File("hard/one", "shared").With(hard),
		File("hard/two", "shared").With(hard),
		File("later/three", "shared").With(hard),
		Sparse("sparse/holes", 1<<20, Piece{0, "begin"}, Piece{300 << 10, "middle"}, Piece{1<<20 - 3, "end"}),
		Sparse("sparse/all-hole", 256<<10),
		File("deep/a/b/c/d/e/f", "deep"),
	}
	for _, name := range []string{
		" ", "sp ace", "tab\there", "new\nline", "bad\xff\xfe", "ünïcode", "'quote\"", "back\\slash",
		"-dash", ".hidden", "...", strings.Repeat("n", 255), "a.b", "a b", "%41", "*?[", "\x01\x7f",
	} {
		items = append(items, File("names/"+name, "name "+name))
	}
	return append(items, File("names/a/b", "sorts before a.b"))
}

// Devices are items that only root can make.
func Devices() []Item {
	return []Item{
		Device("dev/null", chain.CharDevice, 1, 3),
		Device("dev/block", chain.BlockDevice, 259, 70000),
	}
}
