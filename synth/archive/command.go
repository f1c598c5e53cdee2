package archive

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

const usage = `usage: synth [--people 50] [--seed 42] [--days 30] [--mix published|sparse] --out DIR
       synth --verify --out DIR
       synth roster|acts|training|key|gaps [-seed …]

  --out      write people.json, events.ndjson, answers.json, gaps.json and a folder of vendor payloads
             for each source, with their SHA256SUMS
  --verify   generate the company of DIR again, and compare every file and hash with it
`

// Command is the synth command: it writes or verifies an archive, or prints a part of an organisation.
func Command(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return routine.Print(args, stdout, stderr)
	}
	f := flag.NewFlagSet("synth", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage) }
	seed, n, days := f.Uint64("seed", 42, ""), f.Int("people", 50, ""), f.Int("days", 30, "")
	mix, out, verify := f.String("mix", string(people.Published), ""), f.String("out", "", ""), f.Bool("verify", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *out == "" || f.NArg() > 0 {
		return errors.New(usage)
	}
	if *verify {
		if err := Verify(*out); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "%s: every file is what this company makes\n", *out)
		return err
	}
	named, err := people.MixFrom(*mix)
	if err != nil {
		return err
	}
	return Write(Company{Seed: *seed, People: *n, Days: *days, Mix: named}, *out)
}
