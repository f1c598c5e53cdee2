package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/bundle"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
)

func bundleCommand(s *settings) *cobra.Command {
	to := ""
	c := &cobra.Command{
		Use:     "bundle",
		Short:   "Pack logs, state and audit into one file without secrets, to hand on to someone who helps",
		Args:    cobra.NoArgs,
		Example: "  lab bundle\n  lab bundle --to lab.tar.gz",
		Long: `Packs logs, status, doctor's checks, settings, versions and the end of every audit chain into one .tar.gz, on
Kubernetes also pods and events. The lab's secrets are searched for and hidden. Works without a supervisor, too. "up"
makes one by itself when it fails.

Prints the path. Bundles are in one folder, "bundles" in the cache folder (/var/cache/security-training for root, else
~/.cache/security-training), unless --to or LAB_ARTIFACTS says otherwise; the last ten are kept there, and older ones
removed.`,
		RunE: func(c *cobra.Command, _ []string) error {
			tidy := func() error { return nil }
			if to == "" {
				to, tidy = place(s.name)
			}
			if err := errors.Join(writeBundle(c.Context(), s, to, nil), tidy()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), to)
			return err
		},
	}
	c.Flags().StringVar(&to, "to", "",
		"the file; else one in LAB_ARTIFACTS, or in the cache folder, named by the lab and the time")
	return c
}

// keptBundles is how many bundles are kept in the lab's own folder for them.
const keptBundles = 10

// place returns where a bundle without a given name goes, and a function that removes the oldest ones afterwards. In
// LAB_ARTIFACTS, which is the caller's folder, it removes none.
func place(name string) (to string, tidy func() error) {
	none := func() error { return nil }
	if dir := env.Read(env.Process).Optional("LAB_ARTIFACTS", ""); dir != "" {
		return bundle.Place(dir, name, time.Now()), none
	}
	dir, err := local.CacheDir(env.Process)
	if err != nil { // the folder is not trusted, or there is no HOME
		return bundle.Place(os.TempDir(), name, time.Now()), none
	}
	dir = filepath.Join(dir, local.Bundles)
	return bundle.Place(dir, name, time.Now()), func() error { return bundle.KeepLast(dir, keptBundles) }
}

// withBundle makes c write a bundle when it fails, and name it in the error. It writes none for an interruption, or for
// an error that only the caller can mend.
func withBundle(s *settings, c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		var e *lab.Error
		if err == nil || c.Context().Err() != nil || errors.Is(err, errUsage) ||
			errors.As(err, &e) && slices.Contains([]int{lab.ExitUsage, lab.ExitConflict}, e.Code) {
			return err
		}
		to, tidy := place(s.name)
		if errors.Is(err, control.ErrUntrusted) { // nothing there may be read
			return err
		}
		if failed := errors.Join(writeBundle(c.Context(), s, to, err), tidy()); failed != nil {
			return fmt.Errorf(
				"%w\n  (and no bundle could be made: %v)",
				err,
				failed, //nolint:errorlint // err must not choose the exit code
			)
		}
		return fmt.Errorf("%w\n  bundle: %s", err, to)
	}
	return c
}

// writeBundle writes the bundle of the lab of s, which need not exist. Why is the error because of which it is made.
func writeBundle(ctx context.Context, s *settings, to string, why error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	checks, err := checksFor(ctx, runtimeAuto)
	if err != nil {
		return err
	}
	from := bundle.Source{
		Version: version(),
		Why:     why,
		Doctor:  checks,
		Secrets: control.KeysGiven(env.Process),
		Now:     time.Now(),
	}
	f, err := control.StateDirOf(env.Process, s.name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(string(f)); err == nil {
		from.Folder = f
	} else if why == nil {
		return &lab.Error{
			Code: lab.ExitPrecondition, What: "bundle " + s.name, Why: errors.New("there is no such lab"),
			Try: "lab up" + nameFlag(s),
		}
	}
	if l, err := findAny(ctx, s); l != nil {
		from.Status = l.Status
	} else if !errors.Is(err, lab.ErrNone) {
		from.Status = func(context.Context) (lab.Status, error) { return lab.Status{}, err }
	}
	if is, err := existing(s.name); err == nil && is.Runtime != local.RuntimeName {
		from.Runtime = cluster.Explainer{}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &lab.Error{Code: lab.ExitConflict, What: "write bundle", Why: err, Try: "lab bundle --to ANOTHER"}
	}
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := errors.Join(bundle.Write(ctx, out, from), out.Close()); err != nil {
		return errors.Join(err, os.Remove(to)) // remove what is incomplete
	}
	return nil
}
