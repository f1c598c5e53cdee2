package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"example.org/security-training/lab"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/kind"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
)

// runtimeAuto lets `lab up` choose between the local runtime and kind.
const runtimeAuto = "auto"

// runtimes returns all runtimes by name.
func runtimes(binaries string) (map[string]lab.Runtime, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	supervise := []string{self, "supervise"}
	return map[string]lab.Runtime{
		local.RuntimeName:   &local.Runtime{Lookup: env.Process, Binaries: binaries, Self: supervise, Version: version()},
		kind.RuntimeName:    &kind.Runtime{Lookup: env.Process, Binaries: binaries, Self: supervise, Version: version()},
		cluster.RuntimeName: &cluster.Runtime{Lookup: env.Process, Self: supervise, Version: version()},
	}, nil
}

// supervise runs the supervisor of the lab in dir, of any runtime.
func supervise(ctx context.Context, dir string) error {
	var s control.Settings
	if err := control.StateDir(dir).Read(&s); err != nil {
		return err
	}
	switch s.Runtime {
	case local.RuntimeName:
		return local.Supervise(ctx, dir)
	case kind.RuntimeName, cluster.RuntimeName:
		return cluster.Supervise(ctx, dir)
	}
	return &lab.Error{
		Code: lab.ExitPrecondition,
		What: "supervise " + dir,
		Why:  fmt.Errorf("it has the runtime %q, which this build does not know", s.Runtime),
	}
}

// existing returns the settings of the lab called name, or lab.ErrNone if there is no such lab.
func existing(name string) (s control.Settings, err error) {
	f, err := control.StateDirOf(env.Process, name)
	if err != nil {
		return s, err
	}
	err = f.Read(&s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, lab.ErrNone
	case err != nil:
		return s, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the lab " + name,
			Why:  err,
			Try:  "lab bundle --name " + name + "   (then remove " + string(f) + ")",
		}
	}
	if !slices.Contains([]string{local.RuntimeName, kind.RuntimeName, cluster.RuntimeName}, s.Runtime) {
		made := cmp.Or(s.Version, "another")
		return s, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the lab " + name,
			Why:  fmt.Errorf("it has the runtime %q, which this build does not know: %s made it", s.Runtime, made),
			Try:  "the lab program that made it, or another --name",
		}
	}
	return s, nil
}

// choose returns the name of the runtime to use and, for people, why. A lab that exists keeps its runtime.
func choose(ctx context.Context, asked, name string, all map[string]lab.Runtime) (runtime, why string, err error) {
	is, err := existing(name)
	switch {
	case err == nil && asked != runtimeAuto && asked != is.Runtime:
		return "", "", &lab.Error{
			Code: lab.ExitConflict,
			What: "choose the runtime",
			Why:  fmt.Errorf("%s is a lab of the %s runtime", name, is.Runtime),
			Try:  "lab down --name " + name + "   (or another --name)",
		}
	case err == nil:
		return is.Runtime, "the lab is there already", nil
	case !errors.Is(err, lab.ErrNone):
		return "", "", err
	case asked != runtimeAuto:
		return asked, "as you asked", nil
	}
	k := all[kind.RuntimeName].(*kind.Runtime)
	toDownload, err := k.Available(ctx)
	if err != nil {
		return local.RuntimeName, "kind cannot be used here, `lab doctor --runtime kind` says why", nil
	}
	if len(toDownload) > 0 {
		return kind.RuntimeName, "a Docker engine answers; to be downloaded: " + kind.Sizes(toDownload), nil
	}
	return kind.RuntimeName, "a Docker engine answers, and all images are there", nil
}

// find returns the lab of s. Its supervisor must run.
func find(ctx context.Context, s *settings) (*control.Lab, error) {
	l, err := findAny(ctx, s)
	if errors.Is(err, lab.ErrNone) {
		return nil, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the lab " + s.name,
			Why:  errors.New("it is not up"),
			Try:  "lab up" + nameFlag(s),
		}
	}
	if errors.Is(err, control.ErrGone) {
		code := lab.ExitPartly
		if errors.Is(err, context.DeadlineExceeded) {
			code = lab.ExitTimeout
		}
		return nil, &lab.Error{Code: code, What: "find the lab " + s.name, Why: err, Try: "lab up" + nameFlag(s)}
	}
	return l, err
}

// findAny returns the lab of s. If its supervisor does not run, it also returns control.ErrGone.
func findAny(ctx context.Context, s *settings) (*control.Lab, error) {
	is, err := existing(s.name)
	if err != nil {
		return nil, err
	}
	all, err := runtimes("")
	if err != nil {
		return nil, err
	}
	l, err := all[is.Runtime].Find(ctx, s.name)
	if l == nil {
		return nil, err
	}
	return l.(*control.Lab), err
}
