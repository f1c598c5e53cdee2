package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"example.org/security-training/lab"
)

// A shell reads every value back unchanged, with any characters in it.
func TestStatusAsVariablesIsQuotedForAShell(t *testing.T) {
	for _, folder := range []string{
		"/var/lib/x", "/home/a b/labs  two", "/tmp/it's $HOME `id` \"x\"", "/tmp/a\nb;c&d", "",
	} {
		var out bytes.Buffer
		if err := writeStatus(
			&out,
			lab.Status{Name: "lab", Dashboard: "http://127.0.0.1:8080", Folder: folder, Runtime: "local"},
			"env",
		); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(
			t.Context(),
			"sh",
			"-c",
			`eval "$(cat)"; printf %s "$LAB_FOLDER|$LAB_DASHBOARD|$LAB_NAME|$LAB_RUNTIME"`,
		)
		cmd.Stdin = strings.NewReader(out.String())
		if got, err := cmd.CombinedOutput(); err != nil || string(got) != folder+"|http://127.0.0.1:8080|lab|local" {
			t.Errorf("%q comes back as %q, %v", folder, got, err)
		}
	}
}
