package podexec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"k8s.io/client-go/tools/remotecommand"
)

// fakeExec is a command in a pod: what it does with its streams.
type fakeExec func(ctx context.Context, o remotecommand.StreamOptions) error

// Stream implements remotecommand.Executor.
func (f fakeExec) Stream(o remotecommand.StreamOptions) error { return f(context.Background(), o) }

// StreamWithContext implements remotecommand.Executor.
func (f fakeExec) StreamWithContext(ctx context.Context, o remotecommand.StreamOptions) error {
	return f(ctx, o)
}

func TestACommandsStreamsAreAConnection(t *testing.T) {
	c := open(t.Context(), "exec in a/b", fakeExec(func(_ context.Context, o remotecommand.StreamOptions) error {
		line, err := bufio.NewReader(o.Stdin).ReadString('\n')
		fmt.Fprintf(o.Stdout, "heard %s", line)
		return err
	}))
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || string(b) != "heard hello\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWhatACommandComplainsAboutIsTheErrorOfARead(t *testing.T) {
	c := open(t.Context(), "exec in a/b", fakeExec(func(_ context.Context, o remotecommand.StreamOptions) error {
		fmt.Fprintln(o.Stderr, "no such socket")
		return errors.New("exit code 1")
	}))
	defer c.Close()
	_, err := io.ReadAll(c)
	if err == nil || err.Error() != "exec in a/b: exit code 1: no such socket" {
		t.Errorf("got %v", err)
	}
}

func TestAWriteToACommandThatHasEndedSaysWhyItHas(t *testing.T) {
	c := open(t.Context(), "exec in a/b", fakeExec(func(context.Context, remotecommand.StreamOptions) error {
		return errors.New("pod does not have a host assigned")
	}))
	defer c.Close()
	if _, err := c.Write([]byte("x")); err == nil || err.Error() != "exec in a/b: pod does not have a host assigned" {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a closed connection takes what is written")
	}
}

func TestTheConnectionOutlivesTheContextOfItsDialAndEndsTheCommandWhenClosed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := open(ctx, "exec in a/b", fakeExec(func(ctx context.Context, o remotecommand.StreamOptions) error {
		_, err := io.Copy(o.Stdout, o.Stdin)
		if ctx.Err() != nil {
			err = fmt.Errorf("cut off before the input ended: %w", ctx.Err())
		}
		ended <- err
		return err
	}))
	cancel()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.LimitReader(c, 1)); err != nil || string(b) != "x" {
		t.Fatalf("%q, %v", b, err)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestACommandThatDoesNotListenIsCutOff(t *testing.T) {
	c := open(t.Context(), "exec in a/b", fakeExec(func(ctx context.Context, _ remotecommand.StreamOptions) error {
		<-ctx.Done()
		return ctx.Err()
	}))
	c.Close()
	<-c.(*conn).ended
}

func TestOnlyTheEndOfALongComplaintIsKept(t *testing.T) {
	said := &tail{}
	fmt.Fprint(said, strings.Repeat("x", 5000)+"last words\n")
	if s := said.String(); len(s) > 1024 || !strings.HasSuffix(s, "xlast words") {
		t.Errorf("%d bytes: %q", len(s), s)
	}
}
