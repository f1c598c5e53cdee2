// Command tally prints how many tests the `go test -json` on its stdin skipped, by reason.
package main

import (
	"fmt"
	"os"

	"example.org/security-training/lab/tally"
)

func main() {
	skips, err := tally.Skips(os.Stdin)
	if err == nil {
		err = tally.Write(os.Stdout, skips)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
}
