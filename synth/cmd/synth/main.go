// Command synth writes an invented company to a folder and verifies one, or prints its roster, its acts, its training events
// or its answer key, as JSON.
package main

import (
	"fmt"
	"os"

	"example.org/security-training/synth/archive"
)

func main() {
	if err := archive.Command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "synth:", err)
		os.Exit(2)
	}
}
