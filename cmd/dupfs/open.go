package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/backends/all"
	"dupfs/backends/par2"
	"dupfs/backends/s3"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
	"dupfs/chain/when"
)

// archive is an archive that a command works on.
type archive struct {
	url      string // as typed
	shown    string // without passwords
	dir      string // of its cache
	openpgp  *openpgp
	keys     *pgp.Keys
	store    *store.Store
	salvage  bool              // sets whose base is missing are opened, too
	snapshot *snapshot.Archive // nil until points is called
	env      *environ
	audited  bool              // damage is told file by file
	told     *chain.Collection // what announce told of last
	closers  []func() error
}

// openStore opens the archive at url as far as its stored files, asking it
// nothing yet.
func (e *environ) openStore(ctx context.Context, c *cli.Context, url string) (*archive, error) {
	if !isURL(url) {
		return nil, usagef("%s is not a URL", url)
	}
	options, err := e.backendOptions(c)
	if err == nil {
		err = checkPar2(c, url)
	}
	if err != nil {
		return nil, err
	}
	backend, err := all.Open(ctx, url, options)
	if err != nil {
		return nil, openError(err, all.Redact(url))
	}
	if e.wrap != nil {
		backend = e.wrap(backend)
	}
	a, err := e.newArchive(c, url)
	if err != nil {
		return nil, err
	}
	keys, err := a.openpgp.keys(ctx, c, a.dir)
	if err != nil {
		return nil, err
	}
	o, err := e.storeOptions(c, a)
	if err != nil {
		return nil, err
	}
	a.keys, o.Keys = keys, keys
	o.Encrypter = func() (*pgp.Encrypter, error) { return a.openpgp.encrypter(ctx, c, keys) }
	a.salvage = c.Bool("salvage")
	a.store = store.New(e.watch(backend, url, a.dir), o)
	a.closers = append(a.closers, a.store.Close)
	return a, nil
}

// newArchive returns an archive of which only the cache is known.
func (e *environ) newArchive(c *cli.Context, url string) (*archive, error) {
	a := &archive{url: url, shown: all.Redact(url), env: e}
	var err error
	if a.dir, err = e.cacheDir(c, url); err != nil {
		return nil, err
	}
	a.openpgp, err = e.openpgpOf(c)
	return a, err
}

// storeOptions returns what the options say of an archive's store, without
// keys.
func (e *environ) storeOptions(c *cli.Context, a *archive) (o store.Options, err error) {
	o = store.Options{
		Layer: layer(c),
		Prefixes: chain.Prefixes{
			All: c.String("file-prefix"), Archive: c.String("file-prefix-archive"),
			Manifest: c.String("file-prefix-manifest"), Signature: c.String("file-prefix-signature"),
		},
		TempDir: c.String("tempdir"),
		Near:    isLocal(a.url),
		Notify:  a.healed,
	}
	o.Sums, o.SumPart = all.Sums(a.url, s3.Options{PartSize: c.Int64("s3-multipart-chunk-size") << 20})
	if o.Memory, err = byteCount(c, "memory"); err != nil {
		return o, err
	}
	o.Disk, err = e.diskCache(c, a.url, a.dir)
	return o, err
}

// openError gives what is wrong with a URL duplicity's status.
func openError(err error, shown string) error {
	status, hint := classify(err)
	if status == exitGeneric || status == exitNotFound {
		status = exitUser
	}
	if !strings.Contains(err.Error(), shown) {
		err = fmt.Errorf("%s: %w", shown, err)
	}
	return fail(status, err, hint)
}

// open opens the archive at url and lists it. An archive without any point is
// errNoBackups.
func (e *environ) open(ctx context.Context, c *cli.Context, url string) (*archive, error) {
	a, err := e.openStore(ctx, c, url)
	if err != nil {
		return nil, err
	}
	points, err := a.points(ctx)
	if err == nil && len(points) == 0 {
		err = a.noBackups()
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// noBackups says that there is no backup; perhaps there was one.
func (a *archive) noBackups() error {
	err := fmt.Errorf("%s: %w", a.shown, errNoBackups)
	if slices.ContainsFunc(a.store.Leftovers(), func(f chain.Stored) bool { return f.Kind == chain.ManifestFile }) {
		return fail(exitException, err, "there are recovery files of a manifest: `dupfs doctor URL` says what can be done")
	}
	if a.snapshot != nil && len(a.snapshot.Collection().Incomplete) > 0 {
		return fail(exitException, err, "there are volumes without a manifest: `dupfs doctor URL` says what can be done; `dupfs restore --salvage URL DIR` restores what they hold")
	}
	return err
}

// openSaying is open for the commands of duplicity, which say what is there.
func (e *environ) openSaying(ctx context.Context, c *cli.Context, url string) (*archive, error) {
	a, err := e.openStore(ctx, c, url)
	if err != nil {
		return nil, err
	}
	points, err := a.points(ctx)
	switch {
	case a.snapshot != nil:
		a.announce(a.snapshot.Collection(), true)
	case errors.Is(err, errNoBackups):
		a.announce(&chain.Collection{}, true)
	}
	if err == nil && len(points) == 0 {
		err = a.noBackups()
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// points opens the snapshots, if that was not done yet, and returns them.
func (a *archive) points(ctx context.Context) ([]chain.Point, error) {
	if a.snapshot == nil {
		s, err := snapshot.Open(ctx, a.store, snapshot.Options{
			Dir:    filepath.Join(a.dir, a.openpgp.catalog()),
			MaxAge: listingAge, Salvage: a.salvage,
			Note: func(text string) { a.env.note(text) },
			Warn: func(text string) { a.env.warn("%s", text) },
		})
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w (%v)", a.shown, errNoBackups, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.shown, err)
		}
		a.snapshot = s
		a.closers = append(a.closers, s.Close)
	}
	return a.snapshot.Points(ctx)
}

// listingAge is how old a mount's listing of the archive may become.
const listingAge = 30 * time.Second

// Close releases everything, last opened first.
func (a *archive) Close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	a.closers = nil
	return errors.Join(errs...)
}

// tree returns the tree at the time that --time gives, and its point.
func (a *archive) tree(ctx context.Context, c *cli.Context) (chain.Tree, chain.Point, error) {
	if c.IsSet("time") && c.String("time") == "" {
		return nil, chain.Point{}, usagef("--time is empty")
	}
	point, err := a.pointAt(ctx, c, c.String("time"))
	if err != nil {
		return nil, point, err
	}
	t, err := a.treeAt(ctx, point)
	return t, point, err
}

// treeAt returns the tree at a point.
func (a *archive) treeAt(ctx context.Context, point chain.Point) (chain.Tree, error) {
	if point.Damage != "" {
		a.env.warn("the backup of %s is damaged: %s", stamp(point.Time), point.Damage)
	}
	t, err := a.snapshot.Tree(ctx, point.Number)
	if err != nil {
		return nil, fmt.Errorf("the backup of %s: %w", stamp(point.Time), err)
	}
	return t, nil
}

// pointAt returns the newest point not after a time expression; "" is now.
func (a *archive) pointAt(ctx context.Context, c *cli.Context, expr string) (chain.Point, error) {
	points, err := a.points(ctx)
	if err != nil {
		return chain.Point{}, err
	}
	t, err := a.env.parseTime(c, expr)
	if err != nil {
		return chain.Point{}, err
	}
	p, err := snapshot.At(points, t)
	if err == nil {
		a.warnUnfinished(p, t)
	}
	return p, err
}

// warnUnfinished tells of sets without a manifest between a point and a time
// that was asked for: the backup did not finish, or the manifest was lost.
func (a *archive) warnUnfinished(p chain.Point, t time.Time) {
	for _, s := range a.snapshot.Collection().Incomplete {
		if s.End.After(p.Time) && !s.End.After(t) {
			a.env.warn("the backup of %s has no manifest and is not used: that of %s is the newest before", stamp(s.End), stamp(p.Time))
			if len(a.store.LostOf(s)) > 0 {
				a.env.hint("there are recovery files of it: `dupfs doctor " + a.shown + "` says what can be done")
			}
		}
	}
}

// parseTime reads a time as an option gives it.
func (e *environ) parseTime(c *cli.Context, expr string) (time.Time, error) {
	now := e.clock(c)
	if expr == "" {
		// What a clock that is ahead wrote is in the archive nevertheless.
		return time.Unix(1<<40, 0), nil
	}
	t, err := when.Parse(expr, now, time.Local)
	if err != nil {
		return t, &usageError{
			text: fmt.Sprintf("bad time %q: %v", expr, err),
			hint: "times are like 2026-11-21T20:49:32Z, 2026-11-21, 3D (three days ago), 1W2h or now",
		}
	}
	return t, nil
}

// layer returns what new volumes are written in.
func layer(c *cli.Context) chain.Layer {
	switch {
	case !c.Bool("no-encryption"):
		return chain.OpenPGP
	case c.Bool("no-compression"):
		return chain.Plain
	}
	return chain.Gzip
}

// secret returns the passphrase, asking at most once in a run.
func (e *environ) secret(c *cli.Context, twice bool) (string, error) {
	e.secretMu.Lock()
	defer e.secretMu.Unlock()
	if !e.secretKnown && e.secretErr == nil {
		e.secretText, e.secretErr = e.passphrase(c, twice)
		e.secretKnown = e.secretErr == nil
	}
	return e.secretText, e.secretErr
}

// backendOptions collects what the drivers may want to know.
func (e *environ) backendOptions(c *cli.Context) (all.Options, error) {
	o := all.Options{
		Getenv:     e.getenv,
		Password:   func(_ context.Context, prompt string) (string, error) { return e.askOnce(prompt) },
		Timeout:    seconds(c, "timeout"),
		Tries:      c.Int("num-retries"),
		Notify:     e.retried,
		RetryDelay: seconds(c, "backend-retry-delay"),
		VolumeTier: c.String("azure-blob-tier"), MetadataTier: c.String("azure-metadata-tier"),
	}
	o.Par2 = par2Options(c)
	o.SSHOptions = c.String("ssh-options")
	o.SwiftPolicy, o.SwiftSegment = c.String("swift-storage-policy"), c.Int64("mp-segment-size")<<20
	o.Azure.MaxSinglePut, o.Azure.MaxBlock = c.Int64("azure-max-single-put-size"), c.Int64("azure-max-block-size")
	o.Azure.MaxConnections = c.Int("azure-max-connections")
	o.CAFile, o.CAPath = c.String("ssl-cacert-file"), c.String("ssl-cacert-path")
	o.Insecure = c.Bool("ssl-no-check-certificate")
	o.S3.Endpoint, o.S3.Region = c.String("s3-endpoint-url"), c.String("s3-region-name")
	o.S3.Unencrypted = c.Bool("s3-unencrypted-connection")
	o.S3.StorageClass = storageClass(c)
	o.S3.PartSize, o.S3.Parts = c.Int64("s3-multipart-chunk-size")<<20, c.Int("s3-multipart-max-procs")
	o.S3.Encryption = c.Bool("s3-use-server-side-encryption") || c.Bool("s3-use-server-side-kms-encryption")
	if c.Bool("s3-use-server-side-kms-encryption") {
		o.S3.KMSKey = c.String("s3-kms-key-id")
	}
	var err error
	e.objects = c.Bool("json")
	if e.level, err = parseVerbosity(c.String("verbosity")); err != nil {
		return o, err
	}
	if o.WebDAVHeader, err = webdavHeaders(c.String("webdav-headers")); err != nil {
		return o, err
	}
	if o.Upload, err = byteCount(c, "limit-upload"); err != nil {
		return o, err
	}
	o.Download, err = byteCount(c, "limit-download")
	return o, err
}

// par2Options reads what concerns recovery files. Those of duplicity 3 may be in
// quotes once more.
func par2Options(c *cli.Context) par2.Options {
	return par2.Options{
		Redundancy: c.Int("par2-redundancy"), Volumes: c.Int("par2-volumes"), TempDir: c.String("tempdir"),
		Args: strings.Fields(strings.Trim(c.String("par2-options"), `'"`)),
	}
}

// checkPar2 says what is wrong with options that concern recovery files. Where
// there are none to be made they mean nothing.
func checkPar2(c *cli.Context, url string) error {
	if _, wrapped := all.Inner(url); !wrapped {
		return nil
	}
	if n := c.Int("par2-redundancy"); n < 1 || n > 100 {
		return usagef("--par2-redundancy is 1 to 100 percent, not %d", n)
	}
	if n := c.Int("par2-volumes"); n < 1 || n > 31 {
		return usagef("--par2-volumes is 1 to 31 files, not %d", n)
	}
	return nil
}

// isLocal reports whether an archive is in a directory of this machine.
func isLocal(url string) bool {
	inner, _ := all.Inner(url)
	return strings.HasPrefix(inner, "file:")
}

// healed tells of a stored file that is damaged and was healed.
func (a *archive) healed(h store.Healed) {
	if a.audited {
		return // it is a finding
	}
	a.env.warn("%s: %s; it was healed from its recovery files", h.File, h.Reason)
}

// healedHint says, after a command that read all it wanted, what to do about
// what was healed.
func (a *archive) healedHint() {
	if len(a.store.Healed()) > 0 {
		a.env.hint("`dupfs doctor --deep --repair " + a.shown + "` writes what was healed back")
	}
}

// storageClass returns the S3 class that an option names, "" for none.
func storageClass(c *cli.Context) string {
	for _, class := range [...]struct{ option, name string }{
		{"s3-use-rrs", "REDUCED_REDUNDANCY"}, {"s3-use-ia", "STANDARD_IA"}, {"s3-use-onezone-ia", "ONEZONE_IA"},
		{"s3-use-glacier", "GLACIER"}, {"s3-use-glacier-ir", "GLACIER_IR"}, {"s3-use-deep-archive", "DEEP_ARCHIVE"},
	} {
		if c.Bool(class.option) {
			return class.name
		}
	}
	return ""
}

// cacheDir returns the directory of an archive's catalogs and cached volumes,
// made with mode 0700: catalogs hold session keys.
func (e *environ) cacheDir(c *cli.Context, url string) (string, error) {
	parent := c.String("archive-dir")
	if parent == "" {
		base := e.getenv("XDG_CACHE_HOME")
		if base == "" {
			home := e.getenv("HOME")
			switch {
			case home != "":
				base = filepath.Join(home, ".cache")
			case os.Geteuid() == 0: // as systemd runs what it mounts
				base = "/var/cache"
			default:
				return "", usagef("neither --archive-dir, XDG_CACHE_HOME nor HOME is given")
			}
		}
		parent = filepath.Join(base, "dupfs")
	}
	name := c.String("name")
	if name == "" {
		sum := md5.Sum([]byte(url)) // duplicity's rule
		name = hex.EncodeToString(sum[:])
	}
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("archive directory: %w", err)
	}
	return dir, nil
}

// diskCache returns where stored bytes of a remote archive are kept. A local
// archive needs no copy.
func (e *environ) diskCache(c *cli.Context, url, dir string) (*cache.Dir, error) {
	budget, err := byteCount(c, "cache-size")
	if err != nil || budget == 0 || isLocal(url) {
		return nil, err
	}
	return cache.OpenDir(filepath.Join(dir, "volumes"), budget)
}

// byteCount reads an option such as 64M.
func byteCount(c *cli.Context, name string) (int64, error) {
	text := c.String(name)
	if text == "" {
		return 0, nil
	}
	n, err := parseBytes(text)
	if err != nil {
		return 0, usagef("--%s: %v", name, err)
	}
	return n, nil
}

// parseBytes reads a number of bytes with an optional K, M, G or T (powers of
// 1024).
func parseBytes(text string) (int64, error) {
	digits := strings.TrimRight(strings.ToUpper(text), "IB")
	shift := 0
	if digits != "" {
		if i := strings.IndexByte("KMGT", digits[len(digits)-1]); i >= 0 {
			shift = 10 * (i + 1)
			digits = digits[:len(digits)-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is no number of bytes such as 500M", text)
	}
	return n << shift, nil
}
