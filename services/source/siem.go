package source

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"example.org/security-training/services/activity"
)

// Splunk's HTTP Event Collector, with OCSF Detection Findings as events. Shapes from
// https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector and
// https://schema.ocsf.io/1.4.0/classes/detection_finding.
var siem = Row{
	Source: activity.SIEM,
	Pushed: []Push{{
		Route:  "POST /services/collector/event",
		Verify: func(secret []byte, h http.Header, _ []byte) error { return VerifyToken("Splunk", secret, h) },
		Split: func(_ http.Header, body []byte) ([]Record, error) {
			return concatenated("HEC envelope", body)
		},
		Status:   http.StatusOK,
		Accepted: `{"text":"Success","code":0}`,
	}},
	Events: siemEvents,
}

// OCSFVersion is the version of the schema that findings follow.
const OCSFVersion = "1.4.0"

// HEC is Splunk's envelope; time is in seconds with a fraction.
type HEC struct {
	Time       float64           `json:"time"`
	Host       string            `json:"host"`
	Source     string            `json:"source"`
	Sourcetype string            `json:"sourcetype"`
	Index      string            `json:"index"`
	Event      Finding           `json:"event"`
	Fields     map[string]string `json:"fields,omitempty"`
}

// OCSFProduct is the product that reported a finding.
type OCSFProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version,omitempty"`
}

// OCSFMetadata names the product and the version of the schema.
type OCSFMetadata struct {
	Version string      `json:"version"`
	Product OCSFProduct `json:"product"`
	UID     string      `json:"uid,omitempty"`
}

// OCSFName is a name with an id.
type OCSFName struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// OCSFAttack is a MITRE ATT&CK tactic and technique.
type OCSFAttack struct {
	Tactic    *OCSFName `json:"tactic,omitempty"`
	Technique *OCSFName `json:"technique,omitempty"`
	Version   string    `json:"version,omitempty"`
}

// OCSFFindingInfo describes the finding; times are ms since 1970.
type OCSFFindingInfo struct {
	UID         string       `json:"uid"`
	Title       string       `json:"title"`
	Desc        string       `json:"desc,omitempty"`
	Types       []string     `json:"types,omitempty"`
	Attacks     []OCSFAttack `json:"attacks,omitempty"`
	CreatedTime int64        `json:"created_time,omitempty"`
}

// OCSFUser is a person.
type OCSFUser struct {
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	EmailAddr string `json:"email_addr,omitempty"`
}

// OCSFActor is the actor of an evidence.
type OCSFActor struct {
	User *OCSFUser `json:"user,omitempty"`
}

// OCSFEvidence is evidence for a finding.
type OCSFEvidence struct {
	Actor *OCSFActor `json:"actor,omitempty"`
	User  *OCSFUser  `json:"user,omitempty"`
}

// Finding is OCSF's Detection Finding (class 2004). TimezoneOffset is in minutes east of UTC.
type Finding struct {
	ActivityID     int             `json:"activity_id"` // 1 create, 2 update, 3 close
	ActivityName   string          `json:"activity_name"`
	CategoryUID    int             `json:"category_uid"` // 2
	CategoryName   string          `json:"category_name"`
	ClassUID       int             `json:"class_uid"` // 2004
	ClassName      string          `json:"class_name"`
	TypeUID        int             `json:"type_uid"` // class_uid × 100 + activity_id
	TypeName       string          `json:"type_name"`
	SeverityID     int             `json:"severity_id"`
	Severity       string          `json:"severity"`
	Time           int64           `json:"time"` // ms since 1970
	TimezoneOffset *int            `json:"timezone_offset,omitempty"`
	Message        string          `json:"message,omitempty"`
	Metadata       OCSFMetadata    `json:"metadata"`
	FindingInfo    OCSFFindingInfo `json:"finding_info"`
	StatusID       int             `json:"status_id"` // 1 new, 2 in progress, 3 suppressed, 4 resolved
	Status         string          `json:"status"`
	RiskLevelID    int             `json:"risk_level_id,omitempty"`
	IsAlert        bool            `json:"is_alert"`
	Evidences      []OCSFEvidence  `json:"evidences,omitempty"`
}

// DetectionFinding is OCSF's class_uid.
const DetectionFinding = 2004

// FindingKind describes the findings of a verb: finding_info.types, tactic and technique.
type FindingKind struct {
	Verb      activity.Verb
	Type      string
	Tactic    OCSFName
	Technique OCSFName
	Severity  int // OCSF's severity_id: 1 informational … 5 critical
}

// FindingKinds are the known kinds. Simulators write findings by them, and collectors read findings by them.
var FindingKinds = []FindingKind{
	{activity.MalwareDetected, "Malware", OCSFName{"Execution", "TA0002"}, OCSFName{"User Execution", "T1204"}, 5},
	{activity.DataExfiltration, "Data Exfiltration", OCSFName{"Exfiltration", "TA0010"},
		OCSFName{"Exfiltration Over Web Service", "T1567"}, 5},
	{activity.PhishingClick, "Phishing Click", OCSFName{"Initial Access", "TA0001"}, OCSFName{"Phishing", "T1566"}, 4},
	{activity.FailedAuthentication, "Failed Authentication", OCSFName{"Credential Access", "TA0006"},
		OCSFName{"Brute Force", "T1110"}, 3},
	{activity.PolicyViolation, "Policy Violation", OCSFName{"Defense Evasion", "TA0005"}, OCSFName{"Impair Defenses",
		"T1562"}, 2},
	{activity.PhishingReported, "Phishing Reported", OCSFName{}, OCSFName{}, 1},
}

// techniques are more ATT&CK techniques that other products use for the same verbs.
var techniques = map[string]activity.Verb{
	"T1059": activity.MalwareDetected, "T1486": activity.MalwareDetected, "T1105": activity.MalwareDetected,
	"T1055": activity.MalwareDetected,
	"T1041": activity.DataExfiltration, "T1048": activity.DataExfiltration, "T1537": activity.DataExfiltration,
	"T1020": activity.DataExfiltration, "T1052": activity.DataExfiltration,
	"T1598": activity.PhishingClick,
	"T1621": activity.FailedAuthentication,
}

// siemEvents returns one event for each new finding (activity_id 1) that is not suppressed. The verb follows from its
// type, or else from the first known technique; other findings have no event. The person is the user of the first
// evidence that has one.
func siemEvents(r Record, _ Memory) ([]activity.Event, error) {
	var envelope HEC
	if err := decode("HEC envelope", r.Body, &envelope); err != nil {
		return nil, err
	}
	f := envelope.Event
	if f.ClassUID == 0 {
		return nil, fmt.Errorf("read HEC envelope: event.class_uid is missing")
	}
	if f.ClassUID != DetectionFinding || f.ActivityID != 1 || f.StatusID == 3 {
		return nil, nil
	}
	if f.TypeUID != f.ClassUID*100+f.ActivityID {
		return nil, fmt.Errorf("read Detection Finding: type_uid %d: want class_uid × 100 + activity_id", f.TypeUID)
	}
	if f.FindingInfo.UID == "" {
		return nil, fmt.Errorf("read Detection Finding: finding_info.uid is missing")
	}
	at, err := findingTime(envelope)
	if err != nil {
		return nil, err
	}
	verb := findingVerb(f.FindingInfo)
	var who []string
	for _, e := range f.Evidences {
		for _, u := range []*OCSFUser{e.User, actorUser(e.Actor)} {
			if u != nil && len(who) == 0 {
				who = accounts("email", u.EmailAddr, "okta", u.UID, "aws", u.Name)
			}
		}
	}
	if verb == "" || len(who) == 0 {
		return nil, nil
	}
	return checked("Detection Finding", []activity.Event{{
		ID: "siem:" + printable(f.FindingInfo.UID), At: at, Accounts: who, Source: activity.SIEM, Verb: verb,
		Detail: line("%s", f.FindingInfo.Title),
	}})
}

func actorUser(a *OCSFActor) *OCSFUser {
	if a == nil {
		return nil
	}
	return a.User
}

// findingTime is the finding's time, or the envelope's if the finding has none.
func findingTime(h HEC) (time.Time, error) {
	ms := h.Event.Time
	if ms == 0 && !math.IsNaN(h.Time) && h.Time > 0 && h.Time < 1e11 {
		ms = int64(h.Time * 1000)
	}
	if ms <= 0 {
		return time.Time{}, fmt.Errorf("read Detection Finding: time is missing")
	}
	at := time.UnixMilli(ms).UTC()
	if o := h.Event.TimezoneOffset; o != nil {
		if *o < -14*60 || *o > 14*60 {
			return time.Time{}, fmt.Errorf("read Detection Finding: timezone_offset %d: want minutes between -840 and 840", *o)
		}
		at = at.In(time.FixedZone("", *o*60))
	}
	return at, nil
}

func findingVerb(info OCSFFindingInfo) activity.Verb {
	for _, t := range info.Types {
		for _, k := range FindingKinds {
			if strings.EqualFold(t, k.Type) {
				return k.Verb
			}
		}
	}
	for _, a := range info.Attacks {
		if a.Technique == nil {
			continue
		}
		uid, _, _ := strings.Cut(a.Technique.UID, ".") // T1566.002 is a sub-technique of T1566
		for _, k := range FindingKinds {
			if k.Technique.UID == uid && uid != "" {
				return k.Verb
			}
		}
		if v, ok := techniques[uid]; ok {
			return v
		}
	}
	return ""
}
