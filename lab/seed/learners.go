package seed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/world"
)

// ForgetLearners deletes learners' records and returns to the seeded state: the scorer forgets every event after
// position, running plays stop, and the company's ordinary days go on. Before it deletes anything it writes the records
// to two new files in dir, whose paths it returns. It deletes exactly what it wrote: if records change in between, it
// writes them again.
func ForgetLearners(
	ctx context.Context, o *operator.Operator, spec lab.Spec, position int64, dir string, p progress.Reporter,
) (files []string, err error) {
	err = progress.Step(p, "keep learners' results, and go back to the seeded state", func() error {
		if err := o.EachSimulator(ctx, func(ctx context.Context, name string) error {
			err := o.Call(ctx, name, http.MethodDelete, world.RoutePlay.For("live"), nil, nil)
			if err != nil && !operator.IsNotFound(err) {
				return err
			}
			return nil
		}); err != nil {
			return err
		}
		goOn := func(err error) error { return errors.Join(err, Live(context.WithoutCancel(ctx), o, spec)) }
		if err := o.AwaitScored(ctx); err != nil {
			return goOn(err)
		}
		for again := 5; ; again-- {
			var kept exercise.Results
			if err := o.Ask(ctx, lmsapi.RouteResults, nil, &kept); err != nil {
				return goOn(err)
			}
			var err error
			if files, err = KeepResults(kept, dir, "results-"+spec.Name); err != nil {
				return goOn(err)
			}
			orders := resetOrders{
				topology.KindDashboard: lmsapi.ResetOrder{All: true, Mark: kept.Mark},
				topology.KindScorer:    scorerapi.ResetOrder{After: &position},
			}
			if err = orders.give(ctx, o); !changedSince(err) || again == 0 {
				return goOn(err)
			}
			for _, f := range files { // they no longer hold everything
				if err := os.Remove(f); err != nil {
					return goOn(err)
				}
			}
			files = nil
		}
	})
	return files, err
}

// changedSince says whether err means that the records changed after they were written, so that nothing was deleted.
func changedSince(err error) bool {
	var e *httpjson.Error
	return errors.As(err, &e) && e.Code == "records_changed"
}

// KeepResults writes results to two new files in dir that only their owner may read: a JSON file with everything, and a
// CSV file with one line for each lesson and each phishing message. It makes dir if it does not exist, and returns the
// files' absolute paths. Either both files are complete and on the disk, or neither exists.
func KeepResults(r exercise.Results, dir, name string) (files []string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep results: %w", err)
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				os.Remove(f)
			}
			files, err = nil, &lab.Error{
				Code: lab.ExitPrecondition, What: "keep results; nothing was deleted", Why: err,
				Try: "lab reset --learners --yes --to ANOTHER-FOLDER",
			}
		}
	}()
	name += "-" + time.Now().UTC().Format("20060102T150405.000Z")
	for ending, write := range map[string]func(io.Writer) error{".csv": r.WriteCSV, ".json": func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}} {
		var text bytes.Buffer
		if err := write(&text); err != nil {
			return files, err
		}
		path := filepath.Join(dir, name+ending)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return files, err
		}
		files = append(files, path)
		_, err = f.Write(text.Bytes())
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return files, err
		}
	}
	slices.Sort(files)
	return files, nil
}
