package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file and its hash can be changed together. The company is generated again from its seed, which shows the change.
func TestAFileThatWasChangedTogetherWithItsHashIsFound(t *testing.T) {
	folder := write(t, "--people", "5", "--days", "7", "--mix", "sparse", "--seed", "7")
	sum := func(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	events, sums := read(eventsFile), read(sumsFile)
	changed := events[bytes.IndexByte(events, '\n')+1:] // without the first event
	forged := bytes.Replace(sums, []byte(sum(events)), []byte(sum(changed)), 1)
	if bytes.Equal(forged, sums) {
		t.Fatalf("the hash of %s is not in the list", eventsFile)
	}
	for name, b := range map[string][]byte{eventsFile: changed, sumsFile: forged} {
		if err := os.WriteFile(filepath.Join(folder, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := Command([]string{"--verify", "--out", folder}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), eventsFile+": generated again") {
		t.Errorf("%v", err)
	}
}
