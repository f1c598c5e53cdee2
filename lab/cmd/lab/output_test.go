package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/lab"
)

// A pager that shows its first page does not read on. An interrupt ends the verb all the same.
func TestAnInterruptEndsAVerbWhoseReaderDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		full, pipe := io.Pipe()
		code := make(chan int, 1)
		var said strings.Builder
		go func() { code <- runTo(ctx, []string{"--help"}, pipe, &said) }()
		synctest.Wait()
		select {
		case got := <-code:
			t.Fatalf("it ended with %d: nothing is being written", got)
		default:
		}
		began := time.Now()
		interrupt()
		if got := <-code; got != lab.ExitInterrupted {
			t.Errorf("exit code %d, want %d", got, lab.ExitInterrupted)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("it ended %s after the interrupt, want %s", took, patience)
		}
		if got := said.String(); got != "lab: interrupted\n" {
			t.Errorf("it said %q", got)
		}
		full.Close() // ends the write that stayed behind
	})
}

func TestOutputAfterAnInterruptStillReachesAReader(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var read strings.Builder
	out := &output{ctx: ctx, to: &read}
	for _, text := range []string{"one ", "two"} {
		if n, err := out.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if read.String() != "one two" || out.err != nil {
		t.Errorf("%q, %v", read.String(), out.err)
	}
}

func TestAFailedWriteIsRemembered(t *testing.T) {
	cause := errors.New("disk full")
	_, pipe := io.Pipe()
	pipe.CloseWithError(cause)
	out := &output{ctx: t.Context(), to: pipe}
	if _, err := out.Write([]byte("x")); err == nil || !errors.Is(out.err, err) {
		t.Errorf("%v, remembered %v", err, out.err)
	}
}
