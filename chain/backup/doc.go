// Package backup writes a set: it walks a source, compares it with the newest
// state of a chain, and stores what changed.
//
// Call Run. One goroutine walks the source and the base side by side, in path
// order, and plans; workers read files and make signatures and deltas ahead of
// the packer, which writes members, signatures and index in path order; full
// volumes are uploaded in the background. Memory is bounded by Options.Memory
// (one file whose old signature is larger, up to 200 MB for terabytes, is
// prepared alone), the names of one directory for each level of the walk, and
// some 200 bytes a volume; it does not grow with the number of files.
//
// A set exists once its manifest does, and that is written last. A run that
// fails or is cancelled removes what it uploaded, unless it keeps a journal:
// then the volumes that have arrived stay, up to the last one that ends with
// a whole entry, and another run goes on from there (ReadJournal, Ready, and
// Options.Resume). It neither looks again at what is stored already nor stores
// it again: that is in the set as it was when it was read. Who wants the source
// as it is now makes an increment on the resumed set at once. So no file is
// ever a mixture of two states.
//
// What cannot be read is never recorded as deleted: the previous version stays.
// A file that changes while it is read is read again; if that does not help,
// or a part of it was stored already, what was read is stored with a notice.
// So is a big file up to a read error in its middle. Their content and
// signature agree, but their mtime in sigtar and index is none that the file
// has, so that the next run, be it duplicity's, stores them again.
//
// A file counts as unchanged if type, mode, owner, mtime with nanoseconds,
// size, xattrs and link group are those of the base, as far as the base knows
// them. If the ctime or inode number is not what was noted then, its content is
// compared, and it is stored only if that differs.
package backup
