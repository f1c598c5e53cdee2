package risk

import (
	"fmt"
	"strings"

	"example.org/security-training/services/activity"
)

// words are each risky verb in the past tense, once; %s in the second is where the number goes, many.
var words = map[activity.Verb][2]string{
	activity.SecretCommitted:       {"committed a secret", "committed %d secrets"},
	activity.VulnerableDependency:  {"brought in a vulnerable dependency", "brought in %d vulnerable dependencies"},
	activity.ForcePush:             {"rewrote shared history with a forced push", "rewrote shared history with %d forced pushes"},
	activity.UnreviewedCommit:      {"committed to the default branch without review", "committed to the default branch without review %d times"},
	activity.LargeFile:             {"committed a large file", "committed %d large files"},
	activity.PrivilegeEscalation:   {"gained higher privileges", "gained higher privileges %d times"},
	activity.ServiceAccountKey:     {"created a long-lived service account key", "created %d long-lived service account keys"},
	activity.OffHoursAccess:        {"reached a sensitive resource off hours", "reached sensitive resources off hours %d times"},
	activity.CrossAccountAccess:    {"reached into another account", "reached into another account %d times"},
	activity.UnusedPermission:      {"holds a permission that is not used", "holds %d permissions that are not used"},
	activity.MalwareDetected:       {"had malware detected on a device", "had malware detected %d times"},
	activity.DataExfiltration:      {"was seen moving data out", "was seen moving data out %d times"},
	activity.PhishingClick:         {"clicked a phishing link", "clicked %d phishing links"},
	activity.FailedAuthentication:  {"failed to sign in repeatedly", "failed to sign in repeatedly %d times"},
	activity.PolicyViolation:       {"broke a security policy", "broke security policies %d times"},
	activity.TrainingStale:         {"has had no training for over 180 days", "has had no training for over 180 days (%d notices)"},
	activity.OverdueModule:         {"has an overdue training module", "has %d overdue training modules"},
	activity.FailedAssessment:      {"failed an assessment", "failed %d assessments"},
	activity.OverdueSecurityTicket: {"has an overdue security ticket", "has %d overdue security tickets"},
	// What weighs nothing by itself, and makes patterns.
	activity.Commit:     {"committed code", "committed code %d times"},
	activity.DataExport: {"exported data", "exported data %d times"},
}

// Words says in plain English that a verb happened count times, without a subject: "committed 2 secrets"; "git: review submitted"
// for a verb that carries no risk.
func Words(v activity.Verb, count int) string {
	w, ok := words[v]
	if !ok {
		w[0] = strings.NewReplacer(".", ": ", "_", " ").Replace(string(v))
		w[1] = w[0] + " ×%d"
	}
	if count == 1 {
		return w[0]
	}
	return fmt.Sprintf(w[1], count)
}
