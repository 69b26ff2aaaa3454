package index

import (
	"context"
	"database/sql"
	"fmt"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/volume"
)

// Adopter takes the index of a set that was merged without it. Its methods fit
// a Handler.
type Adopter struct{ l *learner }

// Adopt adds to a set that was merged before what its index, which came later,
// tells of it: where the bytes are, hashes, layouts of volumes. Numbers of
// paths and versions stay. fn gives it; all or nothing is added.
func (c *Catalog) Adopt(ctx context.Context, ord int, fn func(a *Adopter) error) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		l, err := newLearner(tx, ord, 0)
		if err != nil {
			return err
		}
		return fn(&Adopter{l})
	})
}

// Runs adds runs of the file that the next Record describes.
func (a *Adopter) Runs(runs []Run) error { return a.l.runs.add(runs) }

// Record takes a file, if the set has it and its bytes are not known yet. Of
// everything else the set told all there is.
func (a *Adopter) Record(r *Record) error {
	if r.Type != chain.File || r.Change == difftar.Deleted {
		return a.l.runs.discard()
	}
	return a.l.file(r, nil, "")
}

// Volume takes the layout of a volume.
func (a *Adopter) Volume(v *VolumeInfo) error {
	b, err := v.Layout.MarshalBinary()
	if err != nil {
		return fmt.Errorf("%s: %w", v.File, err)
	}
	id := int64(a.l.ord)<<32 | int64(v.Number)
	_, err = a.l.tx.Exec(`UPDATE volumes SET layout=?, file=?, size=? WHERE id=?`, sealPage(id, 0, b), v.File, v.Layout.StoredSize, id)
	return bad(err)
}

// Sigtar takes nothing: where signatures are is known from the sigtar itself.
func (a *Adopter) Sigtar(*volume.Layout) error { return nil }

// Unread returns the ordinals of sets with volumes that nobody has read.
func (c *Catalog) Unread(ctx context.Context) (ords []int, err error) {
	rows, err := c.r.QueryContext(context.WithoutCancel(ctx), `SELECT DISTINCT id>>32 FROM volumes WHERE layout IS NULL ORDER BY 1`)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	for rows.Next() {
		var ord int
		if err := rows.Scan(&ord); err != nil {
			return nil, bad(err)
		}
		ords = append(ords, ord)
	}
	return ords, bad(rows.Err())
}
