package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

func devCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "dev WORKLOAD", Short: "Build a workload and swap it into the running lab on each change of its source",
		Args:    cobra.ExactArgs(1),
		Example: "  lab dev lms\n  make dev W=lms",
		Long: `Builds a workload's program from the checkout around the current folder, swaps it into the running lab, prints
the workload's log from then on, and does so again whenever a file that the program is made of is saved. What the
compiler says is printed, and the old program goes on running. Ctrl-C ends it; the workload goes on with the
last program.`,
		RunE: func(c *cobra.Command, args []string) error {
			return dev(c.Context(), s, args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

// dev builds and swaps until ctx ends. It copies the workload's log to out.
func dev(ctx context.Context, s *settings, name string, out, errs io.Writer) error {
	l, err := find(ctx, s)
	if err != nil {
		return err
	}
	_, err = localWorkload(ctx, l, name, lab.Error{
		What: "swap programs into " + s.name,
		Why:  errors.New("every program is in an image"),
		Try:  "lab up --runtime local --name " + s.name + "-dev",
	})
	if err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return &lab.Error{Code: lab.ExitPrecondition, What: "find the source", Why: err, Try: "cd into a clone"}
	}
	d, err := newLoop(s, l, name, root)
	if err != nil {
		return err
	}
	d.errs = errs
	log, err := os.Open(l.LogFile(name))
	if err != nil {
		return err
	}
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		log.Close()
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() { followed <- tailFile(ctx, log, out, true) }()
	err = d.run(ctx)
	stop()
	err = errors.Join(err, <-followed)
	if err == nil {
		err = errSaid // an interruption is the usual end
	}
	return err
}

// loop builds a program on each change of its source, and swaps it into a lab.
type loop struct {
	lab      *control.Lab
	runtime  *local.Runtime
	progress progress.Reporter
	errs     io.Writer // for the compiler's messages
	name     string    // of the workload
	root     string    // the checkout
	bin      string    // where programs are built to
	main     string    // the program's package, "./services/cmd/…"
}

func newLoop(s *settings, l *control.Lab, name, root string) (*loop, error) {
	main, err := packageOf(l, root, name)
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(root, "bin")
	return &loop{
		lab: l, runtime: &local.Runtime{Lookup: env.Process, Binaries: bin, Version: version()},
		progress: s.progress(), name: name, root: root, bin: bin, main: main,
	}, nil
}

// quiet is how long to wait after a change for more changes. An editor saves in several steps, and often several files.
const quiet = 100 * time.Millisecond

// run builds and swaps now, and on each change until ctx ends. That is no error.
func (d *loop) run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the source: %w", err)
	}
	defer watcher.Close()
	src, err := d.watch(ctx, watcher, source{})
	if err != nil {
		return err
	}
	d.progress.Say("%s is built when a file of %d folders is saved; Ctrl-C ends this", d.main, len(src.folders()))
	d.turn(ctx, time.Now())
	var saved time.Time // the first change that is not built yet; zero if there is none
	still := time.NewTimer(quiet)
	still.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			return fmt.Errorf("watch the source: %w", err)
		case e := <-watcher.Events:
			if e.Op == fsnotify.Chmod || !src.has(e.Name) {
				continue
			}
			if saved.IsZero() {
				saved = time.Now()
			}
			still.Reset(quiet)
		case <-still.C:
			d.turn(ctx, saved)
			saved = time.Time{}
			if src, err = d.watch(ctx, watcher, src); err != nil && ctx.Err() == nil {
				fmt.Fprintln(d.errs, err)
			}
		}
	}
}

// turn builds what was saved at the given time and swaps it in. An error is printed, and the old program stays.
func (d *loop) turn(ctx context.Context, saved time.Time) {
	fail := func(what string, err error) {
		if ctx.Err() == nil {
			fmt.Fprintf(d.errs, "%s: %v\n  the old program goes on; save again once it is mended\n", what, err)
		}
	}
	err := progress.Step(d.progress, "build "+d.main, func() error {
		_, err := goCommand(ctx, d.root, append(buildArgs(), "-o", d.bin+string(filepath.Separator), d.main)...)
		return err
	})
	if err != nil {
		fail("build "+d.main, err)
		return
	}
	outdated, err := d.runtime.Outdated(ctx, d.lab)
	if err != nil {
		fail("look at what runs", err)
		return
	}
	if !slices.Contains(outdated, d.name) {
		d.progress.Say("%s runs this program already", d.name)
		return
	}
	if err := d.runtime.Renew(ctx, d.lab, []string{d.name}, d.progress); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(d.errs, "swap %s: %v\n", d.name, err)
		}
		return
	}
	d.progress.Say("%s runs what was saved %.1f s ago", d.name, time.Since(saved).Seconds())
}

// watch finds the files of which the program is made, and watches their folders in addition to those of was. If code
// does not compile, go lists only a part of its files; so what was watched before stays watched.
func (d *loop) watch(ctx context.Context, watcher *fsnotify.Watcher, was source) (source, error) {
	src, err := sourceOf(ctx, d.root, d.main)
	if err != nil {
		return was, err
	}
	maps.Copy(src.code, was.code)
	maps.Copy(src.embedded, was.embedded)
	known := watcher.WatchList()
	for _, dir := range src.folders() {
		if slices.Contains(known, dir) {
			continue
		}
		if err := watcher.Add(dir); err != nil {
			return was, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return src, nil
}

// source has the folders of a program's source, as absolute paths.
type source struct {
	root     string          // of the module, with go.mod
	code     map[string]bool // with packages
	embedded map[string]bool // with files that packages embed
}

// listedPackage is a part of what `go list` prints.
type listedPackage struct {
	Dir        string
	EmbedFiles []string
	Module     *struct{ Main bool }
}

// sourceOf asks go which packages of the module a program is made of.
func sourceOf(ctx context.Context, root, main string) (source, error) {
	text, err := goCommand(ctx, root, "list", "-e", "-deps", "-json=Dir,EmbedFiles,Module", main)
	if err != nil {
		return source{}, fmt.Errorf("list the source of %s: %w", main, err)
	}
	src := source{root: root, code: map[string]bool{}, embedded: map[string]bool{}}
	for packages := json.NewDecoder(strings.NewReader(text)); ; {
		var p listedPackage
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			return src, nil
		} else if err != nil {
			return source{}, fmt.Errorf("list the source of %s: %w", main, err)
		}
		if p.Module == nil || !p.Module.Main {
			continue // not part of this checkout
		}
		src.code[p.Dir] = true
		for _, f := range p.EmbedFiles {
			src.embedded[filepath.Dir(filepath.Join(p.Dir, f))] = true
		}
	}
}

// folders returns the folders to watch.
func (s source) folders() []string {
	all := map[string]bool{s.root: true}
	for _, set := range []map[string]bool{s.code, s.embedded} {
		for dir := range set {
			all[dir] = true
		}
	}
	return lab.SortedKeys(all)
}

// has says whether a file is part of the program's source: Go code without tests, embedded files, and go.mod and
// go.sum. An editor's temporary files are not.
func (s source) has(path string) bool {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
		return false
	}
	return s.embedded[dir] && !strings.HasSuffix(name, "_test.go") ||
		s.code[dir] && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") ||
		dir == s.root && (name == "go.mod" || name == "go.sum")
}
