package training

import (
	"testing"
	"time"
)

func TestADurationIsWrittenAsISO8601(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1:                                "PT0S",
		0:                                 "PT0S",
		90 * time.Second:                  "PT1M30S",
		2 * time.Minute:                   "PT2M",
		26*time.Hour + 5*time.Millisecond: "PT26H0.01S",
	} {
		if got := isoDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
