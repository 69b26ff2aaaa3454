// Package backup writes a set: it walks a source, compares it with the newest
// state of a chain, and stores what changed.
//
// Call Run. One goroutine walks the source and the base side by side, in path
// order, and plans; workers read files and make signatures and deltas ahead of
// the packer, which writes members, signatures and index in path order; full
// volumes are uploaded in the background. Memory is bounded by Options.Memory,
// the names of one directory for each level of the walk, and the tables of the
// volumes; it does not grow with the number of files or their size.
//
// A set exists once its manifest does, and that is written last. A run that
// fails or is cancelled removes what it uploaded.
//
// What cannot be read is never recorded as deleted: the previous version stays.
package backup
