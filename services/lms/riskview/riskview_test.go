package riskview

import (
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

func TestAnEventOfAPatternWithoutAPartOfItsOwnIsListed(t *testing.T) {
	row := patternOf(
		risk.Assessment{Multiplier: 1e6},
		risk.Contribution{
			Line:   risk.PatternLine,
			Events: []risk.Evidence{{Event: "iam:export/7", Verb: activity.DataExport, At: labNow, Detail: "customers"}},
		},
	)
	if len(row.Events) != 1 || row.Events[0].Words != words.Sentence(risk.Words(activity.DataExport, 1)) ||
		row.Events[0].Detail != "customers" ||
		row.Events[0].Part != 0 {
		t.Errorf("an event without a part of its own: %+v", row.Events)
	}
}
