// Package chain holds the vocabulary of duplicity archives: names, paths,
// entries, sets, chains and the trees one can see at a point in time. It does
// no I/O and imports nothing of this module; the packages below it hold the
// formats, keys, storage, index, snapshot, backup and restore.
//
// Words used everywhere:
//
//   - chain: a full set and the increments on it.
//   - set: what one backup run wrote.
//   - point: the end time of a set, a time one can mount.
//   - volume: a difftar file of a set.
//   - manifest, signature, sigtar, delta: as in duplicity.
//   - member: a tar entry in a volume.
//   - entry: a file, directory, link or node of the user.
//   - version: an entry from the set that wrote it until the set that changes it.
//   - stored file: what lies at the backend, under its Name.
//   - chunk: an independently decodable piece of a stored file.
//   - extent: a run of a volume's plaintext.
//   - index: what one set contains and where. Catalog: the local, disposable
//     merge of a chain's indexes.
//   - line: a chain's sets in their order, as one history. A chain has one
//     line, and one more for each set that a fork replaced.
//
// Offsets name their space: fileOff in a user's file, plainOff in a stored
// file's plaintext, storedOff in the stored file itself.
package chain
