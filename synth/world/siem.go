package world

import (
	"time"

	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

var severities = []string{"Unknown", "Informational", "Low", "Medium", "High", "Critical"}

func siemRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	for _, k := range source.FindingKinds {
		if k.Verb != a.Verb {
			continue
		}
		at := a.At.Truncate(time.Millisecond)
		_, offset := at.Zone()
		minutes := offset / 60
		user := &source.OCSFUser{Name: account(p, "aws"), UID: account(p, "okta"), EmailAddr: p.Email}
		title := orElse(a.Detail, k.Type)
		f := source.Finding{
			ActivityID: 1, ActivityName: "Create", CategoryUID: 2, CategoryName: "Findings",
			ClassUID: source.DetectionFinding, ClassName: "Detection Finding",
			TypeUID: source.DetectionFinding*100 + 1, TypeName: "Detection Finding: Create",
			SeverityID: k.Severity, Severity: severities[k.Severity],
			Time: at.UnixMilli(), TimezoneOffset: &minutes, Message: title,
			Metadata: source.OCSFMetadata{
				Version: source.OCSFVersion, UID: guid("event/" + a.ID),
				Product: source.OCSFProduct{Name: "Endpoint Watch", VendorName: "Example"},
			},
			FindingInfo: source.OCSFFindingInfo{
				UID: guid("finding/" + a.ID), Title: title, Types: []string{k.Type}, CreatedTime: at.UnixMilli(),
			},
			StatusID: 1, Status: "New", RiskLevelID: min(4, k.Severity-1), IsAlert: k.Severity > 1,
			Evidences: []source.OCSFEvidence{{Actor: &source.OCSFActor{User: user}}},
		}
		if k.Technique.UID != "" {
			f.FindingInfo.Attacks = []source.OCSFAttack{{Tactic: &k.Tactic, Technique: &k.Technique, Version: "17.1"}}
		}
		w := &written{}
		return w.add("HEC envelope", source.HEC{
			Time: float64(at.UnixMilli()) / 1000, Host: "siem-1", Source: "endpoint-watch",
			Sourcetype: "ocsf:finding", Index: "security", Event: f,
		}).list, w.err
	}
	return nil, unsupported(a)
}
