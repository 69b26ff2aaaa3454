// Package zran inflates deflate streams (RFC 1951) and notes places in the
// middle of them from which they can be inflated again, without what comes
// before.
//
// Such a Point holds the window of up to 32 KiB that the stream may refer
// back to, and a prefix: a few blocks without output that leave any inflater
// at the right bit, within a copy of the right block. So a run of
// a stream between two points, with the prefix in front and an ending behind
// it, is a deflate stream of its own that every implementation reads, given
// the window as its dictionary. A window is sparse: all bytes that the stream
// does not refer to are zero, and few are left (some 800 of 32768, typically).
//
// Reader.Next inflates, Reader.Mark notes a Point, Segment cuts a run out.
package zran
