package chain

import (
	"context"
	"time"
)

// Node is an entry as a Tree or Forest numbers it.
type Node struct {
	Entry
	// Name is the last component; Entry.Path may be empty in what ReadDir,
	// Lookup, Dir and Version return, for they do not climb to the root.
	Name string
	// Dir numbers a directory within its Tree; 0 for other entries. The same
	// path has the same number at every point of a line. Less than 1<<39.
	Dir uint64
	// Version numbers the version of any entry but a directory within the
	// Forest, at every point where it lives; names that are hard links to each
	// other share it. Less than 1<<56. Zero for directories.
	Version uint64
	// Nlink is the number of names of a File at this point, and 2 plus the
	// subdirectories of a Dir (1 if that is not known).
	Nlink uint32
}

// Point is a time one can mount.
type Point struct {
	Time time.Time // end time of the set, whole seconds, UTC
	// Number names the point within its Forest and stays the same when points
	// are added and removed. Less than 1<<24.
	Number uint32
	Full   bool
	// Damage says why the point cannot be trusted to be whole (for example a
	// missing volume); "" if nothing is known to be wrong.
	Damage string
	// Orphan says that the set it builds on is missing: Damage names that.
	Orphan bool
	// Unsure says that it, or a set it builds on, has no manifest and was
	// salvaged: nothing shows that what is left is all of it. Damage says so.
	Unsure bool
}

// Forest is all the points of an archive.
type Forest interface {
	// Points returns all points, oldest first. It asks the archive for new
	// ones at most as often as its implementation says.
	Points(ctx context.Context) ([]Point, error)
	// Tree returns the tree at a point. fs.ErrNotExist if there is none.
	Tree(ctx context.Context, number uint32) (Tree, error)
	// Version returns the entry with that Version number. fs.ErrNotExist if
	// there is none (any more).
	Version(ctx context.Context, version uint64) (Node, error)
	// OpenVersion opens the content of a File's version.
	OpenVersion(ctx context.Context, version uint64) (Content, error)
}

// Tree is the state at one point. Every Node has an exact Size.
type Tree interface {
	// Root returns the top entry, which may be a File (a backup of one file).
	Root(ctx context.Context) (Node, error)
	// Dir returns the directory with that number. fs.ErrNotExist if this
	// point has none.
	Dir(ctx context.Context, dir uint64) (Node, error)
	// Lookup returns the child of a directory. fs.ErrNotExist if there is none.
	Lookup(ctx context.Context, dir uint64, name string) (Node, error)
	// ReadDir calls fn for each child in order of names (as bytes), beginning
	// after the name after ("" for all), until fn returns an error, which it
	// returns. With exact false it may leave the Size of a File -1 rather than
	// read a volume for it.
	ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(Node) error) error
}

// Content is the content of a file. It is safe for concurrent use and needs
// no closing.
type Content interface {
	Size() int64
	// ReadAt follows io.ReaderAt. What cannot be read intact is a
	// *CorruptError, never wrong bytes.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}
