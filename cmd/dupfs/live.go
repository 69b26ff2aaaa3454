package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

// liveArchive finds the archive that backs up a file of the live file system,
// for `yesterday FILE` and `history FILE`: the one in the configuration whose
// source lies nearest above it, else DUPFS_URL, else the only one that is
// configured. It returns the positionals with the URL, nil if that is not what
// was asked for.
func (e *environ) liveArchive(conf *config, cmd *cli.Command, positionals []string) (*namedArchive, []string, error) {
	if len(positionals) != 1 || !e.isLive(cmd, positionals[0]) {
		return nil, nil, nil
	}
	file := positionals[0]
	var best *namedArchive
	for i := range conf.archives {
		a := &conf.archives[i]
		if a.source == "" {
			continue
		}
		if _, ok := below(a.source, file); ok && (best == nil || len(a.source) > len(best.source)) {
			best = a
		}
	}
	if best == nil {
		switch given := e.getenv(urlVariable); {
		case given != "" && isURL(given):
			best = &namedArchive{url: given}
		case given != "":
			best = conf.find(given)
		case len(conf.archives) == 1 && conf.archives[0].source == "":
			best = &conf.archives[0]
		}
	}
	if best == nil {
		return nil, nil, &usageError{
			text: fmt.Sprintf("no archive is known that backs up %s", file),
			hint: fmt.Sprintf("give one in %s a line source = DIR, or set %s, or name it: dupfs %s URL %s", conf.file, urlVariable, cmd.Name, "FILE"),
		}
	}
	e.live, e.liveRoot = true, best.source
	return best, []string{best.url, file}, nil
}

// isLive reports whether a lone argument is a file of the live file system,
// not a path in an archive.
func (e *environ) isLive(cmd *cli.Command, file string) bool {
	if cmd.Name != "history" {
		return cmd.Name == "yesterday"
	}
	for _, start := range []string{"/", "./", "../"} {
		if strings.HasPrefix(file, start) {
			return true
		}
	}
	_, err := os.Lstat(file)
	return err == nil || e.getenv(urlVariable) == ""
}

// below returns the path of a file below a directory, as it is typed or as
// the symbolic links on the way to it lead.
func below(root, file string) (chain.Path, bool) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", false
	}
	if p, ok := within(root, abs); ok {
		return p, true
	}
	real, err1 := filepath.EvalSymlinks(root)
	dir, err2 := filepath.EvalSymlinks(filepath.Dir(abs))
	if err1 != nil || err2 != nil {
		return "", false
	}
	return within(real, filepath.Join(dir, filepath.Base(abs)))
}

func within(root, abs string) (chain.Path, bool) {
	rel, err := filepath.Rel(root, abs)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return chain.ParsePath(rel)
}

// livePath returns the path in the archive of a live file. The archive's
// source is that of the configuration, else what its newest set says.
func (a *archive) livePath(ctx context.Context, file string) (chain.Path, error) {
	root := a.env.liveRoot
	if root == "" {
		var err error
		if root, err = a.sourceRoot(ctx); err != nil {
			return "", err
		}
	}
	if !filepath.IsAbs(root) {
		return "", fail(exitUsage, fmt.Errorf("the archive was made of %q, a relative path: which directory that is cannot be known", root),
			"name it in "+a.env.configFile()+": source = DIR")
	}
	p, ok := below(root, file)
	if !ok {
		return "", fail(exitUsage, fmt.Errorf("%s is not in %s, which the archive is of", file, root), "name the archive: dupfs COMMAND URL FILE")
	}
	return p, nil
}

// sourceRoot returns what the newest set says it was made of.
func (a *archive) sourceRoot(ctx context.Context) (string, error) {
	chains := a.snapshot.Collection().Chains
	if len(chains) == 0 {
		return "", fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	sets := chains[len(chains)-1].Sets
	for _, s := range slices.Backward(sets) {
		if s.Manifest == nil {
			continue
		}
		m, err := a.manifest(ctx, s)
		if err != nil {
			return "", err
		}
		if m.Localdir != "" {
			return m.Localdir, nil
		}
	}
	return "", fail(exitUsage, errors.New("the archive does not say which directory it is of"),
		"name it in "+a.env.configFile()+": source = DIR")
}

// liveForest shows a live file as the version 0 beside an archive's.
type liveForest struct {
	chain.Forest
	file string
}

// OpenVersion implements chain.Forest.
func (f liveForest) OpenVersion(ctx context.Context, version uint64) (chain.Content, error) {
	if version != 0 {
		return f.Forest.OpenVersion(ctx, version)
	}
	info, err := os.Stat(f.file)
	if err != nil {
		return nil, err
	}
	return liveContent{f.file, info.Size()}, nil
}

// liveContent is the content of a live file.
type liveContent struct {
	file string
	size int64
}

func (c liveContent) Size() int64 { return c.size }

func (c liveContent) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	f, err := os.Open(c.file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

// liveNode describes a live file, nil if it is not there.
func liveNode(file string, p chain.Path) (*chain.Node, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &chain.Node{Entry: chain.Entry{
		Path: p, Type: facts(file, info, 0).Type, Mode: uint32(info.Mode().Perm()),
		Mtime: chain.TimeOf(info.ModTime()), Size: info.Size(),
	}}
	return n, nil
}
