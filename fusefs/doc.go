// Package fusefs shows a chain.Forest as a read-only FUSE file system. Call
// Mount first.
//
// The tree it shows:
//
//	snapshots/2026-11-21T20:49:32Z/   the tree at a point, one for each point
//	snapshots/latest                  a symbolic link to the newest of them
//	at/EXPRESSION                     a symbolic link to the newest point not
//	                                  after a time, resolved on look-up
//
// Two points that share a time (a fork of the history) are told apart by a
// suffix: the second is called TIME~2.
//
// Node ids are computed from the numbers of points, directories and versions
// and never remembered, so a mount of ten million entries takes no more
// memory than one of ten. They are the inode numbers, too: the same over
// remounts, and one for a version wherever it lives.
package fusefs
