package routine

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"

	"example.org/security-training/services/activity"
	"example.org/security-training/synth/people"
)

const usage = `usage: synth roster|acts|training|key|gaps [-seed 42] [-people 50] [-days 30] [-mix published|sparse]

  roster    the people as one JSON array, the body of the risk scorer's PUT /v1/people
  acts      what they did up to the epoch, seen or not, one JSON act per line, contractors' included
  training  the training events among them, one activity.Entry per line, a body of the risk scorer's POST /v1/events
  key       the answer key, one JSON line per person: keep it where no service can read it
  gaps      the times whose records a vendor lost, one JSON line each, with the number of acts and
             the storylines: part of the key
`

// Print is the synth command: it writes what args request to stdout.
func Print(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	f := flag.NewFlagSet("synth", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage) }
	seed, n, days := f.Uint64("seed", 42, ""), f.Int("people", 50, ""), f.Int("days", 30, "")
	named := f.String("mix", string(people.Published), "")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	mix, err := people.MixFrom(*named)
	if err != nil {
		return err
	}
	if *n < 1 || *n > 50_000 || *days < 0 || *days > 365 || f.NArg() > 0 {
		return fmt.Errorf("-people %d, -days %d, %q: want 1 to 50000 people, 0 to 365 days, no more words",
			*n, *days, f.Args())
	}
	staff := people.Company(*seed, *n, mix)
	w := bufio.NewWriter(stdout)
	out := json.NewEncoder(w)
	var faults []error
	put := func(v any) { faults = append(faults, out.Encode(v)) }
	switch args[0] {
	case "roster":
		put(people.Roster(staff))
	case "acts":
		for _, a := range Month(append(staff, people.Contractors(*seed, *n)...), *days) {
			put(a)
		}
	case "training":
		for i, e := range TrainingEvents(Month(staff, *days)) {
			put(activity.Entry{Seq: uint64(i + 1), Event: &e})
		}
	case "key":
		for _, a := range people.Key(staff) {
			put(a)
		}
	case "gaps":
		everybody := slices.Concat(staff, people.Contractors(*seed, *n))
		for _, l := range Losses(*seed, everybody, Month(everybody, *days), *days) {
			put(l)
		}
	default:
		return errors.New(usage)
	}
	return errors.Join(append(faults, w.Flush())...)
}

// TrainingEvents are the acts that no vendor reports: the learning system's events.
func TrainingEvents(acts []Act) []activity.Event {
	var events []activity.Event
	for _, a := range acts {
		if a.Source == activity.Training {
			events = append(events, a.Event())
		}
	}
	return events
}
