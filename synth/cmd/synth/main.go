// Command synth writes a simulated company to a folder, verifies one, or prints its roster, acts, training events or
// answer key as JSON.
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
