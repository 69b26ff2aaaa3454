package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// A catalog is one SQLite file. A path of the line has a number, its root 1.
// A set has an ordinal in the line, from 0. A version, which is what one set
// says of one path, has the number path<<16 | ordinal: the version of a path
// at a point is the one with the highest number up to path<<16 | ordinal of
// the point, and merging a set only adds rows.
//
//	sets      what was merged, by ordinal
//	volumes   of the sets, by ordinal<<32 | number, with what is needed to
//	          read them; layout is null while nobody has read the volume
//	children  parent and name -> path. til is the ordinal of the set that
//	          removed it for good, alive if none did
//	versions  kind is type | change<<3, 0 if the set removed the path. size
//	          is -1 while unknown; runs, if they are few, says where the bytes
//	          are; else the pages of the table of that name do, or nobody
//	          knows yet (known is 0). leader is the version that stands for
//	          all hard links to one inode. sum is a checksum of the row
//	runs      pages of runs, by version and fileOff of the first
//	pieces    what a volume holds of a file that is cut at the volume's
//	          ends: runs of its content or delta, not yet put together
//	damage    versions whose bytes are there but make no sense
//	subdirs   number of subdirectories of a path from a set on
//	links     number of names of a link group from a set on
//	source    what the source's file system said of a version
const schema = `
CREATE TABLE sets(ord INTEGER PRIMARY KEY, times TEXT NOT NULL, manifest TEXT NOT NULL, size INTEGER NOT NULL,
	own INTEGER NOT NULL, sigtar TEXT NOT NULL, sigsize INTEGER NOT NULL, layout BLOB);
CREATE TABLE volumes(id INTEGER PRIMARY KEY, file TEXT NOT NULL, size INTEGER NOT NULL, sha1 BLOB,
	first BLOB NOT NULL, last BLOB NOT NULL, layout BLOB);
CREATE TABLE children(parent INTEGER NOT NULL, name BLOB NOT NULL, id INTEGER NOT NULL, til INTEGER NOT NULL,
	PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE TABLE versions(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, kind INTEGER NOT NULL,
	size INTEGER NOT NULL, known INTEGER NOT NULL, grp INTEGER, leader INTEGER, meta BLOB, runs BLOB, sum INTEGER NOT NULL);
CREATE INDEX groups ON versions(grp) WHERE grp IS NOT NULL;
CREATE TABLE runs(version INTEGER NOT NULL, off INTEGER NOT NULL, page BLOB NOT NULL, PRIMARY KEY(version, off)) WITHOUT ROWID;
CREATE TABLE pieces(version INTEGER NOT NULL, volume INTEGER NOT NULL, off INTEGER NOT NULL, kind INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL, page BLOB NOT NULL, PRIMARY KEY(version, volume, off)) WITHOUT ROWID;
CREATE TABLE damage(version INTEGER PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE subdirs(dir INTEGER NOT NULL, ord INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(dir, ord)) WITHOUT ROWID;
CREATE TABLE links(grp INTEGER NOT NULL, ord INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(grp, ord)) WITHOUT ROWID;
CREATE TABLE source(version INTEGER PRIMARY KEY, ctime INTEGER NOT NULL, ino INTEGER NOT NULL);
`

// schemaVersion changes whenever the meaning of a catalog does. A catalog of
// another version is thrown away.
const schemaVersion = 1

// applicationID marks our files.
const applicationID = 0x64757063

const (
	ordBits  = 16
	ordMask  = 1<<ordBits - 1
	pathBits = 28
	// VersionBits is how many bits a version's number has at most.
	VersionBits = pathBits + ordBits
	// alive is the til of what no set removed.
	alive = 1 << 40
	// rootPath is the number of the root.
	rootPath = 1
)

var (
	// ErrBadCatalog says that a catalog is damaged, or not one. It should be
	// discarded and filled again.
	ErrBadCatalog = errors.New("catalog is damaged")
	// ErrInUse says that a bad catalog cannot be replaced, as another process
	// has it open.
	ErrInUse = errors.New("catalog is in use by another process")
	// ErrBusy says that another process is writing to the catalog and did not
	// finish for a long time.
	ErrBusy = errors.New("catalog is being written by another process")
	// ErrNoAccess says that this user cannot write where the catalog is.
	ErrNoAccess = errors.New("catalog cannot be written by this user")
	// ErrFull says that there is no space for the catalog.
	ErrFull = fmt.Errorf("catalog: %w", unix.ENOSPC)
)

// readers is how many queries of a catalog run at a time.
const readers = 4

// Catalog merges the sets of one line. It needs at most some 20 MiB of memory,
// and 32 MiB more while a set is merged, however much is in it. It contains
// session keys, so its file is private to the user. Safe for concurrent use,
// also by several processes.
type Catalog struct {
	path   string
	r, w   *sql.DB
	st     statements
	use    *os.File // locked shared while open
	pages  *pageCache
	locks  chan struct{} // one token: the writer of this process
	closed sync.Once
}

// OpenCatalog opens the catalog at path, or makes an empty one. What is there
// but is no catalog of this version is replaced; ErrInUse if another process
// has it open.
func OpenCatalog(ctx context.Context, path string) (*Catalog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, noAccess(err)
	}
	c, err := openPatiently(ctx, path)
	if err = noAccess(err); errors.Is(err, ErrBadCatalog) {
		if err := removeCatalog(path); err != nil {
			return nil, err
		}
		c, err = openPatiently(ctx, path)
	}
	return c, err
}

// openPatience is how long an open is tried again: SQLite does not wait for others
// that make the same new file, whatever its busy_timeout is.
const openPatience = 2 * time.Second

func openPatiently(ctx context.Context, path string) (*Catalog, error) {
	for end := time.Now().Add(openPatience); ; {
		c, err := openCatalog(ctx, path)
		if !errors.Is(err, ErrBusy) || time.Now().After(end) {
			return c, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// noAccess marks the errors of a user who may not write, or has no space to.
func noAccess(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: %w", ErrNoAccess, err)
	}
	return err
}

func openCatalog(ctx context.Context, path string) (*Catalog, error) {
	use, err := lockFile(ctx, path+".use", unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	c := &Catalog{path: path, use: use, locks: make(chan struct{}, 1), pages: newPageCache(pageBudget)}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Catalog) open(ctx context.Context) error {
	f, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if c.w, err = openDB(c.path, 1, "_pragma=cache_size(-1024)&_txlock=immediate"); err != nil {
		return err
	}
	if err = c.prepareSchema(ctx); err != nil {
		return err
	}
	if err = c.sound(ctx); err != nil {
		return err
	}
	if c.r, err = openDB(c.path, readers, "_pragma=cache_size(-2048)&_pragma=query_only(1)"); err != nil {
		return err
	}
	return c.st.prepare(ctx, c.r)
}

// maxChecked is how large a catalog is read whole when it is opened, in bytes:
// that takes some 30 ms then.
const maxChecked = 4 << 20

// sound makes sure that the pages of a small catalog fit together: SQLite has no
// checksum of them, and one wrong bit in the list of a page's cells hides entries.
func (c *Catalog) sound(ctx context.Context) error {
	st, err := os.Stat(c.path)
	if err != nil || st.Size() > maxChecked {
		return err
	}
	var verdict string
	if err := c.w.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return bad(err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%s: %w: %s", c.path, ErrBadCatalog, verdict)
	}
	return nil
}

// openDB opens the file with conns connections at most, which stay open.
func openDB(path string, conns int, options string) (*sql.DB, error) {
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	db, err := sql.Open("sqlite", "file:"+escape.Replace(path)+
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(4194304)&"+options)
	if err != nil {
		return nil, bad(err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// prepareSchema makes the tables of a new file, and refuses others.
func (c *Catalog) prepareSchema(ctx context.Context) error {
	tx, err := c.w.BeginTx(ctx, nil)
	if err != nil {
		return bad(err)
	}
	defer rollback(tx)
	var version, app int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return bad(err)
	}
	if err := tx.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return bad(err)
	}
	found, err := schemaOf(ctx, tx)
	if err != nil {
		return bad(err)
	}
	switch {
	case version == schemaVersion && app == applicationID && found == strings.TrimSpace(schema):
		return nil
	case version != 0 || app != 0 || found != "":
		return fmt.Errorf("%s: %w: version %d", c.path, ErrBadCatalog, version)
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return bad(err)
	}
	marks := fmt.Sprintf("PRAGMA user_version=%d; PRAGMA application_id=%d", schemaVersion, applicationID)
	if _, err := tx.ExecContext(ctx, marks); err != nil {
		return bad(err)
	}
	return bad(tx.Commit())
}

// schemaOf returns the schema that a file has: a wrong byte in it makes a table
// with other columns, in which nothing is found.
func schemaOf(ctx context.Context, tx *sql.Tx) (string, error) {
	rows, err := tx.QueryContext(ctx, "SELECT coalesce(sql, name) FROM sqlite_master ORDER BY rootpage")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return "", err
		}
		all = append(all, text+";")
	}
	return strings.Join(all, "\n"), rows.Err()
}

// rollback ends a transaction that was not committed. What it returns says
// nothing: the transaction is over in any case.
func rollback(tx *sql.Tx) { _ = tx.Rollback() }

// Close closes the catalog.
func (c *Catalog) Close() error {
	var errs []error
	c.closed.Do(func() {
		c.st.close()
		if c.r != nil {
			errs = append(errs, c.r.Close())
		}
		if c.w != nil {
			errs = append(errs, c.w.Close())
		}
		errs = append(errs, c.use.Close())
	})
	return errors.Join(errs...)
}

// Discard closes the catalog and removes its file. ErrInUse if another process
// has it open.
func (c *Catalog) Discard() error {
	_ = c.Close() // a damaged file may not close well, and is removed
	return removeCatalog(c.path)
}

// removeCatalog removes a catalog that nobody has open.
func removeCatalog(path string) error {
	use, err := os.OpenFile(path+".use", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer use.Close()
	if err := flock(use, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w", path, ErrInUse)
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.RemoveAll(path + suffix); err != nil {
			return err
		}
	}
	return nil
}

// flock locks f. A file system that knows no locks counts as locked.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOLCK):
			return nil
		}
		return err
	}
}

const (
	// lockWait is how long one waits for a lock whose holder shows no life.
	lockWait = 20 * time.Second
	// lifeSign is how often the holder of a lock shows life, by the lock
	// file's mtime: a stopped process must not hold others up.
	lifeSign = 5 * time.Second
)

// lockFile opens and locks a file. ErrBusy if another one has it locked and
// shows no life for lockWait.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, f, how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func waitLock(ctx context.Context, f *os.File, how int) error {
	var life time.Time
	timeout := time.NewTimer(lockWait)
	defer timeout.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := flock(f, how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if info, err := f.Stat(); err == nil && info.ModTime().After(life) {
			life = info.ModTime()
			timeout.Reset(lockWait)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return fmt.Errorf("%s: %w", f.Name(), ErrBusy)
		}
	}
}

// showLife changes the mtime of a lock file until the returned function is
// called.
func showLife(path string) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lifeSign)
		defer tick.Stop()
		for {
			now := time.Now()
			_ = os.Chtimes(path, now, now) // without it others only wait less long
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// write runs fn in a transaction that no other writer is in, and commits it if
// fn succeeds.
func (c *Catalog) write(ctx context.Context, fn func(tx *sql.Tx) error) error {
	select {
	case c.locks <- struct{}{}:
		defer func() { <-c.locks }()
	case <-ctx.Done():
		return ctx.Err()
	}
	lock, err := lockFile(ctx, c.path+".write", unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer showLife(lock.Name())()
	// Statements do not watch ctx: that costs a goroutine for each of them.
	tx, err := c.w.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return bad(err)
	}
	defer rollback(tx)
	if err := fn(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return bad(tx.Commit())
}

// bad marks those errors of SQLite that say that the file is no good. So does a
// value of another type than its column has, for which there is no error type.
func bad(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		if err != nil && strings.HasPrefix(err.Error(), "sql: Scan error") {
			return fmt.Errorf("%w: %w", ErrBadCatalog, err)
		}
		return err
	}
	const (
		sqliteError, sqliteIOErr, sqliteCorrupt = 1, 10, 11
		sqliteFormat, sqliteNotADB              = 24, 26
		sqliteBusy, sqliteFull                  = 5, 13
		sqliteShmSize                           = sqliteIOErr | 19<<8 // no space beside the catalog
	)
	if e.Code() == sqliteShmSize {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	switch e.Code() & 0xff {
	case sqliteFull:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case sqliteError, sqliteIOErr, sqliteCorrupt, sqliteFormat, sqliteNotADB:
		return fmt.Errorf("%w: %w", ErrBadCatalog, err)
	case sqliteBusy:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return fmt.Errorf("catalog: %w", err)
}

// statements are the queries of readers, prepared.
type statements struct {
	all []*sql.Stmt

	children, lookup, version, versionAt *sql.Stmt
	path, childID                        *sql.Stmt
	setOf, sets, volumeOf, volumesOf     *sql.Stmt
	base, page, piecePage, damage        *sql.Stmt
	walk, allVolumes                     *sql.Stmt
	history, names, nameOf, changed      *sql.Stmt
	lost                                 *sql.Stmt
}

// nodeColumns are what scanNode reads, for a version v at the point ?1.
const nodeColumns = `v.id, v.parent, v.name, v.kind, v.size, v.known, v.grp, v.leader, v.meta, v.runs, v.sum,
	CASE WHEN v.kind&7=2 THEN (SELECT n FROM subdirs WHERE dir=v.id>>16 AND ord<=?1 ORDER BY ord DESC LIMIT 1)
	WHEN v.grp IS NOT NULL THEN (SELECT n FROM links WHERE grp=v.grp AND ord<=?1 ORDER BY ord DESC LIMIT 1) END`

// newest joins the version of the child c at the point ?1.
const newest = `children c JOIN versions v ON v.id=(SELECT max(id) FROM versions WHERE id BETWEEN c.id<<16 AND (c.id<<16)|?1)`

// nameColumns are what names reads, for a version v of a child c.
const nameColumns = `c.name, c.id, c.til, v.id, v.kind, v.kind&7<>2 AND EXISTS (SELECT 1 FROM children k WHERE k.parent=c.id)`

func (s *statements) prepare(ctx context.Context, db *sql.DB) error {
	for _, q := range []struct {
		st   **sql.Stmt
		text string
	}{
		{&s.children, `SELECT ` + nodeColumns + `, c.name FROM ` + newest +
			` WHERE c.parent=?2 AND c.name>?3 AND c.til>?1 AND v.kind<>0 ORDER BY c.name LIMIT ?4`},
		{&s.walk, `SELECT ` + nodeColumns + `, c.name, s.ctime, s.ino FROM ` + newest +
			` LEFT JOIN source s ON s.version=v.id WHERE c.parent=?2 AND c.name>?3 AND c.til>?1 AND v.kind<>0 ORDER BY c.name LIMIT ?4`},
		{&s.lookup, `SELECT ` + nodeColumns + `, c.name FROM ` + newest + ` WHERE c.parent=?2 AND c.name=?3 AND v.kind<>0`},
		{&s.versionAt, `SELECT ` + nodeColumns + `, v.name FROM versions v WHERE v.id=(SELECT max(id) FROM versions
			WHERE id BETWEEN ?2<<16 AND (?2<<16)|?1) AND v.kind<>0`},
		{&s.version, `SELECT ` + nodeColumns + `, v.name FROM versions v WHERE v.id=?2 AND v.kind<>0`},
		{&s.history, `SELECT id, kind FROM versions WHERE id BETWEEN ?1<<16 AND (?1<<16)|65535 ORDER BY id`},
		{&s.names, `SELECT ` + nameColumns + ` FROM ` + newest + ` WHERE c.parent=?2 AND c.name>?3 ORDER BY c.name LIMIT ?4`},
		{&s.nameOf, `SELECT ` + nameColumns + ` FROM ` + newest + ` WHERE c.parent=?2 AND c.name=?3`},
		{&s.changed, `SELECT v.parent, v.kind, (SELECT w.kind FROM versions w WHERE w.id BETWEEN (v.id>>16)<<16 AND ((v.id>>16)<<16)|?1
			ORDER BY w.id DESC LIMIT 1) FROM versions v WHERE v.id&65535 BETWEEN ?1+1 AND ?2 AND NOT EXISTS
			(SELECT 1 FROM versions x WHERE x.id BETWEEN v.id+1 AND ((v.id>>16)<<16)|?2)`},
		{&s.lost, fmt.Sprintf(`SELECT DISTINCT parent FROM children WHERE til<>%d`, int64(alive))},
		{&s.path, `SELECT parent, name FROM versions WHERE id>=?1<<16 AND id<(?1+1)<<16 ORDER BY id LIMIT 1`},
		{&s.childID, `SELECT id FROM children WHERE parent=?1 AND name=?2`},
		{&s.sets, `SELECT ord, times, manifest, size, own, sigtar, sigsize, layout IS NOT NULL FROM sets ORDER BY ord`},
		{&s.setOf, `SELECT times, manifest, size, own, sigtar, sigsize, layout FROM sets WHERE ord=?1`},
		{&s.volumeOf, `SELECT file, size, layout FROM volumes WHERE id=?1`},
		{&s.allVolumes, `SELECT id FROM volumes ORDER BY id`},
		{&s.volumesOf, `SELECT id, file, size, sha1, first, last, layout IS NOT NULL FROM volumes
			WHERE id BETWEEN ?1<<32 AND (?1<<32)|4294967295 ORDER BY id`},
		{&s.base, `SELECT id, kind FROM versions WHERE id<?1 AND id>=(?1>>16)<<16 ORDER BY id DESC LIMIT 1`},
		{&s.page, `SELECT off, page FROM runs WHERE version=?1 AND off<=?2 ORDER BY off DESC LIMIT 1`},
		{&s.piecePage, `SELECT page FROM pieces WHERE version=?1 AND volume=?2 AND off=?3`},
		{&s.damage, `SELECT reason FROM damage WHERE version=?1`},
	} {
		st, err := db.PrepareContext(ctx, q.text)
		if err != nil {
			return bad(fmt.Errorf("%w", err))
		}
		*q.st = st
		s.all = append(s.all, st)
	}
	return nil
}

func (s *statements) close() {
	for _, st := range s.all {
		_ = st.Close() // the connections are closed next
	}
}
