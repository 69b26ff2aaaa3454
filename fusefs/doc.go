// Package fusefs shows a chain.Forest as a read-only FUSE file system. Call
// Mount first.
//
// The tree it shows:
//
//	snapshots/2026-11-21T20:49:32Z/   the tree at a point, one for each point
//	snapshots/latest                  a symbolic link to the newest of them
//	at/EXPRESSION                     a symbolic link to the newest point not
//	                                  after a time, resolved on look-up
//	versions/PATH/POINT               the versions of a file that differ, each
//	                                  at the first point that has it
//	deleted/PATH                      what the newest point lacks, as it was last
//	changes/FROM..TO/added/PATH       what differs between two points; so for
//	                                  modified (as at TO) and deleted (as at FROM)
//	.dupfs/status.json                how the mount fares, see Options.Status
//
// The views across points need a forest that is a chain.Past. Their directories
// are made from the catalog as they are read, have no permissions that the
// recorded ones lack, and hold entries with the inode numbers they have
// everywhere. deleted/ has every directory, whether or not anything is deleted
// in it. Options.Layout names other layouts.
//
// The attributes user.dupfs.{set,volumes,bytes_to_fetch,cached,tier,damaged} of
// a file tell what reading it takes. They are not listed, lest copies get them.
//
// Two points that share a time (a fork of the history) are told apart by a
// suffix: the second is called TIME~2.
//
// Node ids are computed from the numbers of points, directories and versions
// and never remembered, so a mount of ten million entries takes no more
// memory than one of ten. They are the inode numbers, too: the same over
// remounts, and one for a version wherever it lives.
package fusefs
