package riskscorer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

func TestABatchHasFiveThousandLinesAtMost(t *testing.T) {
	l := newLab(t)
	var body strings.Builder
	for seq := range batchLines {
		fmt.Fprintf(&body, "{\"seq\":%d}\n", seq+1)
	}
	if code, answer := l.call(gitCollector, "POST", "/v1/events", "application/x-ndjson", body.String()); code != 200 {
		t.Errorf("%d lines: %d %.200s", batchLines, code, answer)
	}
	fmt.Fprintf(&body, "{\"seq\":%d}\n", batchLines+1)
	code, answer := l.call(gitCollector, "POST", "/v1/events", "application/x-ndjson", body.String())
	if code != 413 || !strings.Contains(answer, "too_many_lines") {
		t.Errorf("%d lines: %d %.200s", batchLines+1, code, answer)
	}
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	if len(p.Watermarks) != 1 || p.Watermarks[0].Seq != batchLines {
		t.Errorf("after a batch that was refused: %+v", p.Watermarks)
	}
}

// At the lab's time and ten minutes an event is taken, and a microsecond later it is not.
func TestTheEdgeOfWhatIsTooFarAheadOfTheLabsClock(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	// A clock that moves by less than a microsecond while the test runs.
	_, err := l.pool.Exec(t.Context(),
		`INSERT INTO people.clock (base, since, pace) VALUES ($1, clock_timestamp(), 1e-12)
		ON CONFLICT (one) DO UPDATE SET base = excluded.base, since = excluded.since, pace = excluded.pace`, risk.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	inside := commit(1, "mira", activity.LargeFile, -tooFarIn)
	outside := commit(2, "mira", activity.LargeFile, -tooFarIn-time.Microsecond)
	if code, got := l.send(gitCollector, 1, inside); code != 200 || got[0].Status != activity.Stored {
		t.Errorf("ten minutes ahead: %d %+v", code, got)
	}
	if code, got := l.send(gitCollector, 2, outside); code != 422 || got[0].Reason != activity.TooFarAhead {
		t.Errorf("a microsecond more: %d %+v", code, got)
	}
}
