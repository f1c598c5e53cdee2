package eval

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// ScoreLog scores everyone of the roster at the time τ from a log of events, one JSON line each, in order of time. An
// event may be late if its person passed no lesson in between. It keeps sums and windows in memory, not the log. It
// also returns how many events it read, and ignores those of people outside the roster. It does not look for floods or
// duplicate ids.
func ScoreLog(log io.Reader, roster []risk.Person, p *risk.Profile, at time.Time) ([]risk.Standing, int, error) {
	ledgers := make(map[string]*risk.Accumulator, len(roster))
	for _, person := range roster {
		ledgers[person.ID] = risk.NewAccumulator(p)
	}
	lines := bufio.NewReaderSize(log, 1<<20)
	read := 0
	for {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			break
		} else if err != nil && !errors.Is(err, io.EOF) {
			return nil, read, fmt.Errorf("score log: %w", err)
		}
		var e activity.Event
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, read, fmt.Errorf("score log: line %d: %w", read+1, err)
		}
		read++
		l := ledgers[e.Person]
		if l == nil || e.At.After(at) {
			continue
		}
		if !l.Add(e) {
			return nil, read, fmt.Errorf(
				"score log: line %d: %s of %s is later than what it acts on; sort the log by time",
				read,
				e.ID,
				e.Person,
			)
		}
	}
	standings := make([]risk.Standing, 0, len(roster))
	for _, person := range roster {
		score := ledgers[person.ID].Score(person.Role, at)
		level := p.Level(score)
		standings = append(
			standings,
			risk.Standing{Person: person, At: at, Score: score, Level: level, Frequency: level.Frequency()},
		)
	}
	return standings, read, nil
}
