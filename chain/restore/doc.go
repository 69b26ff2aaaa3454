// Package restore writes the state at one point into a directory, and verifies
// it. It sees a chain.Forest only, so it restores from anything that shows a
// tree. Call Run or Verify.
//
// Nothing outside the target is touched, whatever the archive says and
// whoever else works in the target: the walk holds each directory open and
// names single components below it, and no symlink is ever followed; the target
// itself is the caller's word. No file stands under its final name before it is
// whole: it is written under a temporary name (".dupfs-restore-" and random
// digits) beside it and renamed. Killed, a restore may leave such names.
//
// Memory does not depend on how many files there are or how large they are:
// 1 MiB for each worker and 8 MiB to read ahead, a page of 256 entries for each
// level of the tree, and a few entries that wait for a worker. Hard links cost
// nothing: while names of a file are still to come, it has one more name in a
// temporary directory of the target, where they find it. Verify against a
// directory holds, for each level, the names of one directory besides.
package restore
