package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/backends/all"
	"dupfs/chain"
	"dupfs/chain/restore"
	"dupfs/chain/store"
	"dupfs/fusefs"
)

// mountFlags are the options of a mount beside those of the archive.
func mountFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "stay in front until it is unmounted or interrupted"},
		&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, as far as the recorded permissions let them"},
		&cli.BoolFlag{Name: "no-xattrs", Usage: "show no extended attributes and access lists: ls -l and cp -a, which ask for them of every file, are quicker"},
		&cli.BoolFlag{Name: "nonempty", Usage: "mount over a directory that is not empty"},
		&cli.Float64Flag{Name: "request-timeout", Value: 300, Usage: "`SECONDS` after which a read fails"},
		&cli.BoolFlag{Name: "numeric-owner", Usage: "owners by number, not by name"},
		&cli.BoolFlag{Name: "owner-root", Usage: "show root as the owner of everything"},
		&cli.StringFlag{Name: "uid", Usage: "show `USER`, a name or number, as the owner of everything"},
		&cli.StringFlag{Name: "gid", Usage: "show `GROUP`, a name or number, as the group of everything"},
		&cli.StringFlag{Name: "umask", Usage: "take the permissions in `MASK` (octal) away from everything"},
		&cli.StringFlag{Name: "layout", Value: "plain", Usage: "`LAYOUT` plain, restic, samba (names for Previous Versions) or zfs (the newest tree with .zfs/snapshot in it)"},
		&cli.StringFlag{Name: "snapshot-template", Usage: "names of points, in UTC: `FORMAT` of %Y %m %d %H %M %S and others of strftime (default: %Y-%m-%dT%H:%M:%SZ)"},
		&cli.StringFlag{Name: "idle-timeout", Usage: "unmount when nobody has used it for `TIME`, such as 15m or 1h"},
		&cli.BoolFlag{Name: "open", Usage: "show it in the file manager once it is mounted"},
		currentTimeFlag(),
	}
}

// mountPoint refuses to mount where the archive is.
func mountPoint(url, dir string) error {
	url, _ = all.Inner(url)
	path, ok := strings.CutPrefix(url, "file://")
	if !ok {
		return nil
	}
	return apart(dir, path, "the archive")
}

// apart refuses a mount point that covers, or lies in, a directory that the
// mount itself must read: it would wait for itself.
func apart(dir, other, what string) error {
	a, err1 := resolved(dir)
	b, err2 := resolved(other)
	if err1 != nil || err2 != nil {
		return nil // whoever needs it will say what is wrong
	}
	text := ""
	switch {
	case a == b:
		text = "is"
	case strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/"):
		text = "holds"
	case strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/"):
		text = "lies in"
	default:
		return nil
	}
	return fail(exitUser, fmt.Errorf("%s %s %s", printable(dir), text, what), "mount on another, empty directory")
}

// resolved returns the path of a directory without symbolic links.
func resolved(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// layouts are what --layout knows: what is at the top, and the template of the
// points' names.
var layouts = map[string]struct {
	layout   fusefs.Layout
	template string
}{
	"plain":  {fusefs.Plain, ""},
	"restic": {fusefs.Restic, ""},
	"samba":  {fusefs.Plain, "@GMT-%Y.%m.%d-%H.%M.%S"}, // the only form that Windows asks for
	"zfs":    {fusefs.ZFS, ""},
}

// mountOptions turns the options into those of the mount.
func (e *environ) mountOptions(ctx context.Context, c *cli.Context, a *archive, dir string) (fusefs.Options, error) {
	o := fusefs.Options{
		Source:     "dupfs:" + a.shown,
		AllowOther: c.Bool("allow-other"),
		NoXattrs:   c.Bool("no-xattrs"),
		NonEmpty:   c.Bool("nonempty"),
		ParseTime:  func(s string) (time.Time, error) { return e.parseTime(c, s) },
		Timeout:    seconds(c, "request-timeout"),
		Status:     a.mountStatus(dir, e.now()),
	}
	if o.NoXattrs && o.AllowOther {
		return o, usagef("--no-xattrs and --allow-other exclude each other: the mode of a file with an access list lets in too many")
	}
	l, ok := layouts[c.String("layout")]
	if !ok {
		return o, usagef("--layout: %q is none of plain, restic, samba and zfs", c.String("layout"))
	}
	o.Layout = l.layout
	if o.Layout == fusefs.Restic {
		o.Source = "dupfs:restic:" + a.shown // httm knows such mounts by that word
	}
	template := c.String("snapshot-template")
	if template == "" {
		template = l.template
	}
	if template != "" {
		if err := checkTemplate(template); err != nil {
			return o, err
		}
		o.PointName = func(t time.Time) string { return strftime(template, t) }
	}
	if o.Layout == fusefs.Restic {
		o.Host = a.newestHost(ctx)
	}
	if text := c.String("idle-timeout"); text != "" {
		idle, err := parseDuration(text)
		if err != nil {
			return o, usagef("--idle-timeout: %v", err)
		}
		o.Idle = idle
	}
	if text := c.String("umask"); text != "" {
		mask, err := strconv.ParseUint(text, 8, 12)
		if err != nil {
			return o, usagef("--umask: %q is no octal number such as 027", text)
		}
		o.Umask = uint32(mask)
	}
	var err error
	o.Owner, err = shownOwner(c)
	return o, err
}

// parseDuration reads a number of seconds, or a time such as 15m.
func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time such as 90, 15m or 1h", text)
	}
	return d, nil
}

// shownOwner returns which owner the mount shows of an entry.
func shownOwner(c *cli.Context) (func(*chain.Entry) (uid, gid uint32), error) {
	owner := restore.Owners(c.Bool("numeric-owner"))
	uid, err := idOf(c, "uid", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return nil, err
	}
	gid, err := idOf(c, "gid", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return nil, err
	}
	if c.Bool("owner-root") {
		if uid != nil || gid != nil {
			return nil, usagef("--owner-root excludes --uid and --gid")
		}
		uid, gid = new(uint32), new(uint32)
	}
	return func(e *chain.Entry) (u, g uint32) {
		if uid == nil || gid == nil {
			u, g = owner(e)
		}
		if uid != nil {
			u = *uid
		}
		if gid != nil {
			g = *gid
		}
		return u, g
	}, nil
}

// idOf reads a user or group, nil if the option is not given.
func idOf(c *cli.Context, option string, find func(string) (string, error)) (*uint32, error) {
	text := c.String(option)
	if text == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		id := uint32(n)
		return &id, nil
	}
	found, err := find(text)
	if err != nil {
		return nil, usagef("--%s: %v", option, err)
	}
	n, err := strconv.ParseUint(found, 10, 32)
	id := uint32(n)
	return &id, err
}

// newestHost returns the host that the newest manifest names, "" if it cannot
// be read.
func (a *archive) newestHost(ctx context.Context) string {
	chains := a.snapshot.Collection().Chains
	if len(chains) == 0 {
		return ""
	}
	sets := chains[len(chains)-1].Sets
	m, err := a.manifest(ctx, sets[len(sets)-1])
	if err != nil || strings.ContainsAny(m.Hostname, "/\x00") || m.Hostname == "." || m.Hostname == ".." {
		return ""
	}
	return m.Hostname
}

// strftimeForms are the letters of strftime, as Go spells them.
var strftimeForms = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'b': "Jan", 'h': "Jan", 'B': "January", 'd': "02", 'e': "_2", 'j': "002",
	'a': "Mon", 'A': "Monday", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'F': "2006-01-02", 'T': "15:04:05",
	'R': "15:04", 'D': "01-02-06", 'z': "-0700", 'Z': "MST",
}

// strftime writes a time by a template; checkTemplate has seen it.
func strftime(template string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(template); i++ {
		if template[i] != '%' || i+1 == len(template) {
			b.WriteByte(template[i])
			continue
		}
		i++
		switch form := strftimeForms[template[i]]; {
		case form != "":
			b.WriteString(t.Format(form))
		case template[i] == 's':
			fmt.Fprint(&b, t.Unix())
		default:
			b.WriteByte(template[i])
		}
	}
	return b.String()
}

// checkTemplate refuses what makes no names.
func checkTemplate(template string) error {
	for i := 0; i < len(template); i++ {
		if template[i] != '%' {
			continue
		}
		i++
		if i == len(template) || strftimeForms[template[i]] == "" && template[i] != 's' && template[i] != '%' {
			return usagef("--snapshot-template: %q is not known in %q", "%"+template[min(i, len(template)):min(i+1, len(template))], template)
		}
	}
	name := strftime(template, time.Unix(1<<30, 0).UTC())
	if strings.ContainsAny(name, "/\x00") || len(name) > 200 || name == "." || name == ".." || name == "latest" {
		return usagef("--snapshot-template: %q gives %q, which is no name of a directory", template, name)
	}
	return nil
}

// mountState is .dupfs/status.json.
type mountState struct {
	Archive string        `json:"archive"`
	Dir     string        `json:"mounted_on"`
	PID     int           `json:"pid"`
	Since   time.Time     `json:"since"`
	Health  string        `json:"health"` // ok, failing (the last request that failed is recent), damaged
	Mount   fusefs.Health `json:"mount"`
	Store   store.Counts  `json:"store"`
	Damaged []string      `json:"damaged"`
}

// failingFor is how long after a failure a mount counts as failing.
const failingFor = 5 * time.Minute

// mountStatus returns what writes the status file of a mount.
func (a *archive) mountStatus(dir string, since time.Time) func(fusefs.Health) []byte {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return func(h fusefs.Health) []byte {
		s := mountState{
			Archive: a.shown, Dir: dir, PID: os.Getpid(), Since: since.UTC().Truncate(time.Second), Health: "ok",
			Mount: h, Store: a.store.Counts(), Damaged: append([]string{}, a.snapshot.Damaged()...),
		}
		switch {
		case !h.LastAt.IsZero() && a.env.now().Sub(h.LastAt) < failingFor:
			s.Health = "failing"
		case len(s.Damaged) > 0:
			s.Health = "damaged"
		}
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return nil
		}
		return append(b, '\n')
	}
}
