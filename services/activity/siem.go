package activity

// SIEM is the source of alerts of devices and networks.
const SIEM Source = "siem"

// Verbs of siem that carry risk, then those that are used only by patterns, baselines and states.
const (
	MalwareDetected      Verb = "siem.malware_detected"
	DataExfiltration     Verb = "siem.data_exfiltration"
	PhishingClick        Verb = "siem.phishing_click"
	FailedAuthentication Verb = "siem.failed_authentication"
	PolicyViolation      Verb = "siem.policy_violation"

	PhishingReported Verb = "siem.phishing_reported"
)

var siem = Row{
	Source: SIEM, Group: Alerts, Vendor: true,
	Accounts: []string{"email", "okta", "aws"},
	Verbs: []VerbRow{
		{MalwareDetected, "had malware detected on a device", "had malware detected %d times"},
		{DataExfiltration, "was seen moving data out", "was seen moving data out %d times"},
		{PhishingClick, "clicked a phishing link", "clicked %d phishing links"},
		{FailedAuthentication, "failed to sign in repeatedly", "failed to sign in repeatedly %d times"},
		{PolicyViolation, "broke a security policy", "broke security policies %d times"},
		{Verb: PhishingReported},
	},
}
