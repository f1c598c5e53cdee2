package bridge_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/services/registrar/bridge"
)

func TestTailWaitsForAFileAndFollowsItFromAnOffset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	in, gone := io.Pipe()
	out, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- bridge.Run(t.Context(), []string{"tail", path, "4"}, in, w) }()
	lines := bufio.NewReader(out)
	for i, text := range []string{"one\ntwo\n", "three\n"} {
		f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if i > 0 {
			f, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if i == 0 {
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		got, err := lines.ReadString('\n')
		if want := []string{"two\n", "three\n"}[i]; err != nil || got != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	gone.Close()
	if err := <-ended; err != nil {
		t.Errorf("when its reader went away it said %v", err)
	}
}

func TestTailRefusesAnOffsetBeyondTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(path, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	forever, _ := io.Pipe()
	for _, offset := range []string{"5", "-1", "x"} {
		err := bridge.Run(context.Background(), []string{"tail", path, offset}, forever, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "tail") {
			t.Errorf("offset %s: %v, want a refusal", offset, err)
		}
	}
}
