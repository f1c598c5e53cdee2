package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.org/security-training/lab"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/synth/nearest"
)

var (
	errUsage = errors.New("usage")
	// errSaid is an error that has already been shown.
	errSaid = errors.New("already said")
)

// exitCode returns the exit code of an error: that of a *lab.Error, or that of the error's class.
func exitCode(err error) int {
	var (
		e    *lab.Error
		peer *httpjson.Error
		dial *net.OpError
		call *url.Error
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, errUsage):
		return lab.ExitUsage
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return lab.ExitTimeout
	case errors.As(err, &peer):
		return answerCode(peer.Status)
	case errors.As(err, &dial), errors.As(err, &call):
		return lab.ExitPartly // the lab is up, but one of its workloads does not answer
	case refusedBySystem(err):
		return lab.ExitPrecondition
	}
	return lab.ExitAssertion
}

// answerCode returns the exit code for a workload's answer with an HTTP status.
func answerCode(status int) int {
	switch status {
	case http.StatusConflict:
		return lab.ExitConflict
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return lab.ExitUsage
	case http.StatusGatewayTimeout:
		return lab.ExitTimeout
	}
	return lab.ExitPartly
}

// refusedBySystem says whether the operating system refused to do something, because a disk is full or because of
// permissions.
func refusedBySystem(err error) bool {
	for _, cause := range []error{
		fs.ErrPermission, fs.ErrNotExist, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.ENOTDIR,
		syscall.EISDIR, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG, syscall.ENAMETOOLONG,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// explain adds the command to try to an error of the operating system that has none.
func explain(err error) error {
	var e *lab.Error
	switch {
	case errors.As(err, &e):
		return err
	case lab.DiskFull(err):
		return fmt.Errorf("%w\n  try:  df -h   (and make room where it is full)", err)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w\n  try:  a folder that you may write, or sudo", err)
	}
	return err
}

// output is stdout. It remembers why a write failed, because not every printer reports that.
type output struct {
	ctx context.Context // of the verb
	to  io.Writer
	err error
}

// patience is how long a write may take after an interrupt.
const patience = time.Second

// Write fails after an interrupt if the reader has stopped reading, as a pager that shows its first page. Otherwise a
// full pipe would keep the verb from ending. Such a write stays behind, so no other may follow.
func (o *output) Write(b []byte) (int, error) {
	if errors.Is(o.err, errNoReader) {
		return 0, o.err
	}
	type result struct {
		n   int
		err error
	}
	written := make(chan result, 1)
	own := bytes.Clone(b) // the caller may use b again
	go func() {
		n, err := o.to.Write(own)
		written <- result{n, err}
	}()
	var r result
	select {
	case r = <-written:
	case <-o.ctx.Done():
		select {
		case r = <-written:
		case <-time.After(patience):
			r.err = errNoReader
		}
	}
	if r.err != nil && o.err == nil {
		o.err = fmt.Errorf("write the output: %w", r.err)
	}
	return r.n, r.err
}

var errNoReader = errors.New("the reader does not read")

// strict makes every wrong use of c and its subcommands a usage error with a suggestion.
func strict(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if c.HasSubCommands() && len(args) > 0 {
				return noVerb(c, args[0])
			}
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w: %w\n  try:  %s", errUsage, err, helpOf(c))
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// noVerb is the error for a verb that c does not have.
func noVerb(c *cobra.Command, name string) error {
	var known []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			known = append(known, sub.Name())
		}
	}
	return fmt.Errorf(
		"%w: %s has no verb %q%s\n  try:  %s",
		errUsage,
		c.CommandPath(),
		name,
		nearest.Hint(name, known),
		helpOf(c),
	)
}

// helpOf is the command that shows the help of c.
func helpOf(c *cobra.Command) string {
	root, rest, _ := strings.Cut(c.CommandPath(), " ")
	return strings.TrimSpace(root + " help " + rest)
}

// noFlag is the error for flags that cannot be parsed.
func noFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	hint := ""
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				known = append(known, f.Name)
			}
		})
		if name := nearest.To(unknown.GetSpecifiedName(), known); name != "" {
			hint = "; did you mean --" + name + "?"
		}
	}
	return fmt.Errorf("%w: %w%s\n  try:  %s", errUsage, err, hint, helpOf(c))
}

// flagGroups makes it a usage error if flags exclude each other or are missing. Cobra has no type for these errors.
func flagGroups(c *cobra.Command, _ []string) error {
	if err := errors.Join(c.ValidateRequiredFlags(), c.ValidateFlagGroups()); err != nil {
		return fmt.Errorf("%w: %w\n  try:  %s", errUsage, err, helpOf(c))
	}
	return nil
}
