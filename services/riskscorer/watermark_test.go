package riskscorer

import (
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// A collector that lost an answer sends again what the scorer has: the batch is older than the watermark.
func TestAWatermarkNeverGoesBack(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	for _, c := range []struct {
		from uint64
		id   int
		want uint64
	}{{10, 1, 10}, {3, 2, 10}, {9, 3, 10}, {11, 4, 11}, {11, 4, 11}} {
		e := commit(c.id, "mira", activity.LargeFile, time.Hour)
		if code, _ := l.send(gitCollector, c.from, e); code != 200 {
			t.Fatalf("seq %d: status %d", c.from, code)
		}
		var p scorerapi.Progress
		l.get("/v1/watermarks", &p)
		if len(p.Watermarks) != 1 || p.Watermarks[0].Seq != c.want {
			t.Errorf("after seq %d: %+v, want %d", c.from, p.Watermarks, c.want)
		}
	}
}
