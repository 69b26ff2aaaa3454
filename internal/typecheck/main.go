// Command typecheck tells whether the packages of this module compile for another
// platform, without compiling them:
//
//	go run ./internal/typecheck darwin/arm64
//
// A build would compile the SQL engine once more, which takes minutes. This reads
// the sources that the build would, declarations only of what is not ours, and has
// their types checked. What only a linker would find it does not.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	for _, platform := range os.Args[1:] {
		if err := check(platform); err != nil {
			fmt.Fprintf(os.Stderr, "typecheck: %s: %v\n", platform, err)
			os.Exit(1)
		}
	}
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct {
		Main      bool
		GoVersion string
	}
}

// check checks the packages of the module in the working directory.
func check(platform string) error {
	goos, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return fmt.Errorf("want GOOS/GOARCH")
	}
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module", "./...")
	list.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.StdoutPipe()
	if err != nil {
		return err
	}
	if err := list.Start(); err != nil {
		return err
	}
	done := map[string]*types.Package{"unsafe": types.Unsafe}
	ours := 0
	for d := json.NewDecoder(out); ; { // what is imported comes first
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		if done[p.ImportPath], err = p.check(done, arch); err != nil {
			_ = list.Process.Kill()
			_ = list.Wait()
			return fmt.Errorf("%s: %w", p.ImportPath, err)
		}
		if p.ours() {
			ours++
		}
	}
	if err := list.Wait(); err != nil {
		return err
	}
	if ours == 0 {
		return fmt.Errorf("no package is there")
	}
	return nil
}

// ours reports whether a package belongs to the module itself.
func (p *pkg) ours() bool { return p.Module != nil && p.Module.Main }

// check checks one package, whose imports are in done.
func (p *pkg) check(done map[string]*types.Package, arch string) (*types.Package, error) {
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	config := types.Config{
		Importer:         importer{p.ImportMap, done},
		Sizes:            types.SizesFor("gc", arch),
		IgnoreFuncBodies: !p.ours(),
	}
	if p.Module != nil && p.Module.GoVersion != "" {
		config.GoVersion = "go" + p.Module.GoVersion
	}
	return config.Check(p.ImportPath, fset, files, nil)
}

// importer finds what was checked before.
type importer struct {
	renamed map[string]string
	done    map[string]*types.Package
}

// Import meets types.Importer.
func (i importer) Import(path string) (*types.Package, error) {
	if name, ok := i.renamed[path]; ok {
		path = name
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s was not listed before it was imported", path)
}
