package eval

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/archive"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// stream returns the random numbers for resampling, the same in every run.
func stream(seeds int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seeds), 95)) }

// ScoreFile is the file scores-<profile>.json of a dump: everyone's score by the profile at the end of the history.
type ScoreFile struct {
	At           time.Time          `json:"at"`
	Profile      string             `json:"profile"`
	Version      int                `json:"version"`
	People       []PersonScore      `json:"people"` // as in people.json
	Organisation *risk.Organisation `json:"organisation,omitempty"`
}

// PersonScore is an entry of a ScoreFile. Baselines have neither sources nor a multiplier.
type PersonScore struct {
	ID         string        `json:"id"`
	Score      risk.Score    `json:"score"`
	Level      risk.Level    `json:"level"`
	Sources    *risk.Sources `json:"sources,omitempty"`
	Multiplier risk.Micro    `json:"multiplier,omitzero"`
	Floor      risk.Micro    `json:"floor,omitzero"`
	Pattern    string        `json:"pattern,omitempty"`
}

// dump writes one company and its scores to <Dump>/<mix>-<seed>/. Done is what people did, acts is what vendors
// recorded.
func dump(
	plan Plan,
	seed uint64,
	staff []people.Person,
	done, acts []routine.Act,
	lives map[string][]activity.Event,
	all []rule,
) error {
	folder := filepath.Join(plan.Dump, fmt.Sprintf("%s-%d", plan.Mix, seed))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	put := func(name string, write func(*archive.File) error) error {
		return archive.WriteFile(filepath.Join(folder, name), write)
	}
	if err := put("people.json", func(f *archive.File) error { return f.List(people.Roster(staff)) }); err != nil {
		return err
	}
	if err := put("answers.json", func(f *archive.File) error { return f.List(people.Key(staff)) }); err != nil {
		return err
	}
	if err := put(
		"gaps.json", func(f *archive.File) error { return f.List(routine.Losses(seed, staff, done, plan.Days)) },
	); err != nil {
		return err
	}
	if err := put("events.ndjson", func(f *archive.File) error {
		for _, a := range acts {
			if err := f.Line(a.Event()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, r := range all {
		file := ScoreFile{At: risk.Epoch, Profile: r.name, Version: r.version}
		var standings []risk.Standing
		for _, p := range staff {
			line := PersonScore{ID: p.ID}
			if r.profile != nil {
				a := r.profile.Assess(p.ID, p.Role, lives[p.ID], risk.Epoch)
				line.Score, line.Level, line.Sources = a.Score, a.Level, &a.Sources
				line.Multiplier, line.Floor, line.Pattern = a.Multiplier, a.Floor, a.Pattern
			} else {
				line.Score = r.baseline.Score(lives[p.ID], risk.Epoch)
				line.Level = r.baseline.Level(line.Score)
			}
			file.People = append(file.People, line)
			if p.Employed(risk.Epoch) {
				standings = append(standings, risk.Standing{Person: p.Person, At: risk.Epoch, Score: line.Score, Level: line.Level})
			}
		}
		if r.profile != nil {
			o := r.profile.Organise(standings, risk.Epoch)
			file.Organisation = &o
		}
		if err := put("scores-"+r.name+".json", func(f *archive.File) error { return f.Document(file) }); err != nil {
			return err
		}
	}
	return nil
}
