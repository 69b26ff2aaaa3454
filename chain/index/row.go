package index

import (
	"database/sql"
	"encoding/binary"
	"fmt"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// row is a row of versions.
type row struct {
	id, parent int64
	name       []byte
	kind       int64
	size       int64
	known      bool
	group      uint64
	leader     int64
	meta, runs []byte
	sum        int64
}

// kindOf packs a type and a change.
func kindOf(r *Record) int64 {
	if r.Change == difftar.Deleted {
		return 0
	}
	return int64(r.Type) | int64(r.Change)<<3
}

// checksum covers the whole row: a disk that changes a bit must not change
// what a file seems to be.
func (r *row) checksum() int64 {
	var known uint64
	if r.known {
		known = 1
	}
	b := make([]byte, 0, 256)
	for _, v := range []uint64{uint64(r.id), uint64(r.parent), uint64(r.kind), uint64(r.size), known, r.group, uint64(r.leader)} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendBlob(appendBlob(appendBlob(b, r.name), r.meta), r.runs)
	return int64(checksum(b))
}

// args returns the columns for insertRow, with the right sum.
func (r *row) args(dst []any) []any {
	var group, leader any
	if r.group != 0 {
		group = int64(r.group)
	}
	if r.leader != 0 {
		leader = r.leader
	}
	return append(dst, r.id, r.parent, r.name, r.kind, r.size, r.known, group, leader, r.meta, r.runs, r.checksum())
}

const (
	rowColumns = 11
	insertRow  = `INSERT OR REPLACE INTO versions(id, parent, name, kind, size, known, grp, leader, meta, runs, sum) VALUES `
	selectRow  = `SELECT id, parent, name, kind, size, known, grp, leader, meta, runs, sum FROM versions `
)

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// scan reads the columns of selectRow, and more.
func (r *row) scan(s scanner, more ...any) error {
	var group, leader sql.NullInt64
	dest := []any{&r.id, &r.parent, &r.name, &r.kind, &r.size, &r.known, &group, &leader, &r.meta, &r.runs, &r.sum}
	if err := s.Scan(append(dest, more...)...); err != nil {
		return bad(err)
	}
	r.group, r.leader = uint64(group.Int64), leader.Int64
	if r.checksum() != r.sum {
		return fmt.Errorf("%w: row %d has a wrong checksum", ErrBadCatalog, r.id)
	}
	return nil
}

// record decodes the metadata.
func (r *row) record(rec *Record) error {
	rec.Path = ""
	d := &decoder{b: r.meta}
	c := coder{alone: true}
	c.read(d, rec, 0)
	if err := d.end(); err != nil {
		return fmt.Errorf("%w: row %d: %w", ErrBadCatalog, r.id, err)
	}
	if rec.Type == chain.File {
		rec.Size = r.size
	}
	return nil
}

// setHash adds the hash of the content to the metadata, unless it has one.
func (r *row) setHash(hash [32]byte) error {
	var rec Record
	if err := r.record(&rec); err != nil || rec.HasHash {
		return err
	}
	rec.Hash, rec.HasHash = hash, true
	c := coder{alone: true}
	r.meta = c.append(make([]byte, 0, len(r.meta)+40), &rec, 0)
	return nil
}

// Node is an entry as a catalog numbers it.
type Node struct {
	Record
	Name    string
	ID      int64 // number of the version
	Leader  int64 // of the version that stands for all hard links; ID if there are none
	Known   bool  // a File's runs, and so its Size, are known
	Subdirs int64 // of a Dir
	Links   int64 // names of the link group at the point; 0 if there is no group
	// Ctime and Ino are what the source's file system said, as noted; both 0
	// if nothing was. Only Walk tells.
	Ctime int64
	Ino   uint64
}

// Dir returns the number of the node's path.
func (n *Node) Dir() int64 { return n.ID >> ordBits }

// Ord returns the ordinal of the set that holds the version.
func (n *Node) Ord() int { return int(n.ID & ordMask) }

// OrdOf returns the ordinal of the set that holds a version.
func OrdOf(version int64) int { return int(version & ordMask) }

// scanNode reads nodeColumns, the name by which the node was found, and more.
func scanNode(s scanner, n *Node, more ...any) error { return new(row).scanNode(s, n, more...) }

// scanNode is scanNode, and keeps the row.
func (r *row) scanNode(s scanner, n *Node, more ...any) error {
	var count sql.NullInt64
	var name []byte
	if err := r.scan(s, append([]any{&count, &name}, more...)...); err != nil {
		return err
	}
	if string(name) != string(r.name) {
		return fmt.Errorf("%w: %q is called %q", ErrBadCatalog, name, r.name)
	}
	if err := r.record(&n.Record); err != nil {
		return err
	}
	n.Name, n.ID, n.Leader, n.Known = string(r.name), r.id, r.id, r.known
	if r.leader != 0 {
		n.Leader = r.leader
	}
	switch {
	case n.Type == chain.Dir:
		n.Subdirs = count.Int64
	case r.group != 0:
		n.Links = count.Int64
	}
	return nil
}

// PathOf returns the number of a version's path.
func PathOf(version int64) int64 { return version >> ordBits }
