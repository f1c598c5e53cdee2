package source

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"example.org/security-training/services/activity"
)

// Okta's System Log, polled, and AWS CloudTrail, pushed. Shapes from
// https://developer.okta.com/docs/api/openapi/okta-management/management/tag/SystemLog/ and
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html.
var iam = Row{
	Source: activity.IAM,
	Pushed: []Push{{
		Route: "POST /cloudtrail",
		Split: func(_ http.Header, body []byte) ([]Record, error) {
			var f struct{ Records []json.RawMessage }
			if err := decode("CloudTrail file", body, &f); err != nil {
				return nil, err
			}
			if len(f.Records) == 0 {
				return nil, fmt.Errorf("read CloudTrail file: no Records")
			}
			return records("cloudtrail", f.Records), nil
		},
		Status:   http.StatusAccepted,
		Accepted: `{"message":"accepted"}`,
	}},
	Polled: &Poll{
		Route:     "GET /api/v1/logs",
		First:     "/api/v1/logs?since=1970-01-01T00%3A00%3A00.000Z&limit=1000",
		Authorize: func(secret []byte, h http.Header) { h.Set("Authorization", "SSWS "+string(secret)) },
		Split: func(_ http.Header, body []byte) ([]Record, error) {
			var page []json.RawMessage
			if err := decode("System Log page", body, &page); err != nil {
				return nil, err
			}
			return records("okta", page), nil
		},
	},
	Events: iamEvents,
}

func records(kind string, list []json.RawMessage) []Record {
	out := make([]Record, len(list))
	for i, raw := range list {
		out[i] = Record{Kind: kind, Body: raw}
	}
	return out
}

func iamEvents(r Record, _ Memory) ([]activity.Event, error) {
	if r.Kind == "okta" {
		var e OktaEvent
		if err := decode("LogEvent", r.Body, &e); err != nil {
			return nil, err
		}
		return oktaEvents(e)
	}
	var c CloudTrail
	if err := decode("CloudTrail record", r.Body, &c); err != nil {
		return nil, err
	}
	return cloudTrailEvents(c)
}

// OktaActor is an actor or target; of type "User", alternateId is the login.
type OktaActor struct {
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	AlternateID string            `json:"alternateId"`
	DisplayName string            `json:"displayName"`
	DetailEntry map[string]string `json:"detailEntry"`
}

// OktaClient is the client of a request.
type OktaClient struct {
	UserAgent           OktaUserAgent `json:"userAgent"`
	Zone                string        `json:"zone"`
	Device              string        `json:"device"`
	ID                  *string       `json:"id"`
	IPAddress           string        `json:"ipAddress"`
	GeographicalContext OktaPlace     `json:"geographicalContext"`
}

// OktaUserAgent is the browser.
type OktaUserAgent struct {
	RawUserAgent string `json:"rawUserAgent"`
	OS           string `json:"os"`
	Browser      string `json:"browser"`
}

// OktaPlace is a place.
type OktaPlace struct {
	City        string          `json:"city"`
	State       string          `json:"state"`
	Country     string          `json:"country"`
	PostalCode  string          `json:"postalCode"`
	Geolocation OktaGeolocation `json:"geolocation"`
}

// OktaGeolocation is in degrees.
type OktaGeolocation struct {
	Lat float64 `json:"lat"`
	Lon float64 `json:"lon"`
}

// OktaOutcome is SUCCESS, FAILURE, SKIPPED, ALLOW, DENY, CHALLENGE or UNKNOWN.
type OktaOutcome struct {
	Result string  `json:"result"`
	Reason *string `json:"reason"`
}

// OktaAuthentication is the authenticationContext.
type OktaAuthentication struct {
	AuthenticationProvider *string `json:"authenticationProvider"`
	CredentialProvider     *string `json:"credentialProvider"`
	CredentialType         *string `json:"credentialType"`
	Issuer                 *string `json:"issuer"`
	Interface              *string `json:"interface"`
	AuthenticationStep     int     `json:"authenticationStep"`
	RootSessionID          string  `json:"rootSessionId"`
	ExternalSessionID      string  `json:"externalSessionId"`
}

// OktaSecurity is the securityContext.
type OktaSecurity struct {
	ASNumber *int    `json:"asNumber"`
	ASOrg    *string `json:"asOrg"`
	ISP      *string `json:"isp"`
	Domain   *string `json:"domain"`
	IsProxy  *bool   `json:"isProxy"`
}

// OktaTransaction joins events of one request.
type OktaTransaction struct {
	Type   string            `json:"type"` // WEB, JOB
	ID     string            `json:"id"`
	Detail map[string]string `json:"detail"`
}

// OktaDebug is Okta's free map; its keys differ by event type and organisation.
type OktaDebug struct {
	DebugData map[string]string `json:"debugData"`
}

// OktaRequest is the chain of addresses of a request.
type OktaRequest struct {
	IPChain []OktaHop `json:"ipChain"`
}

// OktaHop is one address of the chain.
type OktaHop struct {
	IP                  string    `json:"ip"`
	GeographicalContext OktaPlace `json:"geographicalContext"`
	Version             string    `json:"version"`
	Source              *string   `json:"source"`
}

// OktaEvent is a LogEvent of the System Log.
type OktaEvent struct {
	Actor                 OktaActor          `json:"actor"`
	Client                OktaClient         `json:"client"`
	Device                *string            `json:"device"`
	AuthenticationContext OktaAuthentication `json:"authenticationContext"`
	DisplayMessage        string             `json:"displayMessage"`
	EventType             string             `json:"eventType"`
	Outcome               OktaOutcome        `json:"outcome"`
	Published             time.Time          `json:"published"` // UTC
	SecurityContext       OktaSecurity       `json:"securityContext"`
	Severity              string             `json:"severity"` // DEBUG, INFO, WARN, ERROR
	DebugContext          OktaDebug          `json:"debugContext"`
	LegacyEventType       *string            `json:"legacyEventType"`
	Transaction           OktaTransaction    `json:"transaction"`
	UUID                  string             `json:"uuid"`
	Version               string             `json:"version"`
	Request               OktaRequest        `json:"request"`
	Target                []OktaActor        `json:"target"`
}

// Keys of Okta's free maps that this organisation uses. OktaLocalTime is the sign-in page's local time, RFC 3339 with
// its offset. OktaAccessWindow is the sign-on policy's result, "outside" or "inside". OktaSensitivity marks a target as
// "restricted".
const (
	OktaLocalTime    = "localTime"
	OktaAccessWindow = "accessWindow"
	OktaSensitivity  = "sensitivity"
)

// OffHours is the rule for access to a restricted resource: before 7, from 20 o'clock on, or on a weekend, by the
// offset of the time.
func OffHours(at time.Time) bool {
	day := at.Weekday()
	return at.Hour() < 7 || at.Hour() >= 20 || day == time.Saturday || day == time.Sunday
}

// oktaEvents returns the events of one LogEvent. A refused request (outcome FAILURE or DENY) is no access. A grant of
// privileges counts for the administrator who made it; a group membership counts only if the group has "admin" in its
// name. Access to a restricted target out of hours is iam.off_hours_access, as decided by the sign-on policy, or else
// by OffHours.
func oktaEvents(o OktaEvent) ([]activity.Event, error) {
	if o.UUID == "" || o.EventType == "" || o.Published.IsZero() {
		return nil, fmt.Errorf("read LogEvent: uuid, eventType and published are required")
	}
	if o.Actor.Type != "User" {
		return nil, nil
	}
	at := o.Published
	local, err := time.Parse(time.RFC3339, o.DebugContext.DebugData[OktaLocalTime])
	if err == nil && sameInstant(local, at) {
		at = at.In(local.Location())
	}
	success := o.Outcome.Result == "SUCCESS" || o.Outcome.Result == "ALLOW"
	target := ""
	restricted := false
	admins := false
	for _, t := range o.Target {
		if target == "" {
			target = t.DisplayName
		}
		restricted = restricted || t.DetailEntry[OktaSensitivity] == "restricted"
		admins = admins || t.Type == "UserGroup" && strings.Contains(strings.ToLower(t.DisplayName), "admin")
	}
	outside := OffHours(at)
	if w := o.DebugContext.DebugData[OktaAccessWindow]; w != "" {
		outside = w == "outside"
	}

	var verbs []activity.Verb
	switch o.EventType {
	case "user.session.start":
		if success {
			verbs = append(verbs, activity.SignIn)
		}
	case "user.account.privilege.grant":
		if success {
			verbs = append(verbs, activity.PrivilegeEscalation)
		}
	case "group.user_membership.add":
		if success && admins {
			verbs = append(verbs, activity.PrivilegeEscalation)
		}
	case "user.mfa.okta_verify.deny_push":
		verbs = append(verbs, activity.MFADenied)
	}
	if success && restricted && outside {
		verbs = append(verbs, activity.OffHoursAccess)
	}
	detail := line("%s", o.DisplayMessage)
	if target != "" {
		detail = line("%s: %s", o.DisplayMessage, target)
	}
	return perVerb("LogEvent", "iam:okta/"+printable(o.UUID), verbs, activity.Event{
		At: at, Accounts: accounts("okta", o.Actor.AlternateID), Source: activity.IAM, Detail: detail,
	})
}

// perVerb returns one event for each verb. The verb is part of the id only if there are several.
func perVerb(what, id string, verbs []activity.Verb, e activity.Event) ([]activity.Event, error) {
	if len(e.Accounts) == 0 {
		return nil, nil
	}
	var events []activity.Event
	for _, v := range verbs {
		e.ID, e.Verb = id, v
		if len(verbs) > 1 {
			e.ID += "/" + strings.TrimPrefix(string(v), "iam.")
		}
		events = append(events, e)
	}
	return checked(what, events)
}

func sameInstant(a, b time.Time) bool {
	d := a.Sub(b)
	return d > -time.Second && d < time.Second
}

// CloudTrailSession is a session of an assumed role.
type CloudTrailSession struct {
	SessionIssuer *CloudTrailIssuer `json:"sessionIssuer,omitempty"`
	Attributes    struct {
		CreationDate     time.Time `json:"creationDate"`
		MFAAuthenticated string    `json:"mfaAuthenticated"`
	} `json:"attributes"`
}

// CloudTrailIssuer is the role behind a session.
type CloudTrailIssuer struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId"`
	ARN         string `json:"arn"`
	AccountID   string `json:"accountId"`
	UserName    string `json:"userName"`
}

// CloudTrailIdentity is the identity of the caller.
type CloudTrailIdentity struct {
	Type           string             `json:"type"` // IAMUser, AssumedRole, Root, AWSService …
	PrincipalID    string             `json:"principalId,omitempty"`
	ARN            string             `json:"arn,omitempty"`
	AccountID      string             `json:"accountId,omitempty"`
	AccessKeyID    string             `json:"accessKeyId,omitempty"`
	UserName       string             `json:"userName,omitempty"`
	InvokedBy      string             `json:"invokedBy,omitempty"`
	SessionContext *CloudTrailSession `json:"sessionContext,omitempty"`
}

// CloudTrail is one record. Parameters differ for each call, and AWS publishes no schema of them: they stay raw except
// for the few that are used.
type CloudTrail struct {
	EventVersion        string               `json:"eventVersion"`
	UserIdentity        CloudTrailIdentity   `json:"userIdentity"`
	EventTime           time.Time            `json:"eventTime"` // UTC
	EventSource         string               `json:"eventSource"`
	EventName           string               `json:"eventName"`
	AWSRegion           string               `json:"awsRegion"`
	SourceIPAddress     string               `json:"sourceIPAddress"`
	UserAgent           string               `json:"userAgent"`
	ErrorCode           string               `json:"errorCode,omitempty"`
	ErrorMessage        string               `json:"errorMessage,omitempty"`
	RequestParameters   json.RawMessage      `json:"requestParameters"`
	ResponseElements    json.RawMessage      `json:"responseElements"`
	AdditionalEventData json.RawMessage      `json:"additionalEventData,omitempty"`
	RequestID           string               `json:"requestID"`
	EventID             string               `json:"eventID"`
	ReadOnly            bool                 `json:"readOnly"`
	Resources           []CloudTrailResource `json:"resources,omitempty"`
	EventType           string               `json:"eventType"`
	ManagementEvent     bool                 `json:"managementEvent"`
	RecipientAccountID  string               `json:"recipientAccountId"`
	EventCategory       string               `json:"eventCategory"`
	ServiceEventDetails json.RawMessage      `json:"serviceEventDetails,omitempty"`
}

// CloudTrailResource is an accessed resource.
type CloudTrailResource struct {
	AccountID string `json:"accountId,omitempty"`
	Type      string `json:"type"`
	ARN       string `json:"ARN"`
}

// CloudTrailRequest are the request parameters that are used.
type CloudTrailRequest struct {
	UserName   string `json:"userName,omitempty"`
	PolicyARN  string `json:"policyArn,omitempty"`
	PolicyName string `json:"policyName,omitempty"`
	RoleARN    string `json:"roleArn,omitempty"`
	RoleName   string `json:"roleName,omitempty"`
	BucketName string `json:"bucketName,omitempty"`
	Key        string `json:"key,omitempty"`
	Name       string `json:"name,omitempty"`
}

// CloudTrailAdditional is the additionalEventData that is used: that of S3's data events and of sign-ins.
type CloudTrailAdditional struct {
	BytesTransferredOut float64 `json:"bytesTransferredOut,omitempty"` // S3 sometimes writes it with a decimal point
	MFAUsed             string  `json:"MFAUsed,omitempty"`
}

// AccessAnalyzerFinding is the service event of IAM Access Analyzer's unused access analysis.
type AccessAnalyzerFinding struct {
	ID string `json:"id"`
	// UnusedPermission, UnusedIAMRole, UnusedIAMUserAccessKey, UnusedIAMUserPassword
	FindingType  string `json:"findingType"`
	Resource     string `json:"resource"` // arn:aws:iam::123456789012:user/mira
	ResourceType string `json:"resourceType"`
	Status       string `json:"status"` // ACTIVE, ARCHIVED, RESOLVED
}

// cloudTrailEvents returns the events of one record. Failed calls are ignored. Calls that extend rights or weaken their
// supervision (an MFA device removed, the trail stopped) are iam.privilege_escalation of the caller. A new access key
// is iam.service_account_key. Every call in another account than the caller's is iam.cross_account_access. Bytes read
// from S3 are iam.data_export of the resource "s3://name". An active finding of unused access is iam.unused_permission
// of its user.
func cloudTrailEvents(c CloudTrail) ([]activity.Event, error) {
	if c.EventID == "" || c.EventName == "" || c.EventTime.IsZero() {
		return nil, fmt.Errorf("read CloudTrail record: eventID, eventName and eventTime are required")
	}
	if c.ErrorCode != "" {
		return nil, nil
	}
	id := "iam:cloudtrail/" + printable(c.EventID)
	if c.EventType == "AwsServiceEvent" && c.EventSource == "access-analyzer.amazonaws.com" {
		var f AccessAnalyzerFinding
		if err := decode("serviceEventDetails", orNull(c.ServiceEventDetails), &f); err != nil {
			return nil, err
		}
		_, user, ok := strings.Cut(f.Resource, ":user/")
		if !ok || f.Status != "ACTIVE" || !strings.HasPrefix(f.FindingType, "Unused") {
			return nil, nil
		}
		return perVerb("CloudTrail record", id, []activity.Verb{activity.UnusedPermission}, activity.Event{
			At: c.EventTime, Accounts: accounts("aws", user), Source: activity.IAM,
			Detail: line("%s of %s", f.FindingType, user),
		})
	}

	var request CloudTrailRequest
	var more CloudTrailAdditional
	// Parameters of other calls may have the same names and other types; they are ignored.
	_ = json.Unmarshal(orNull(c.RequestParameters), &request)
	_ = json.Unmarshal(orNull(c.AdditionalEventData), &more)

	e := activity.Event{At: c.EventTime, Accounts: accounts("aws", cloudTrailUser(c.UserIdentity)), Source: activity.IAM}
	var verbs []activity.Verb
	what := ""
	switch c.EventName {
	case "AttachUserPolicy", "AttachRolePolicy", "AttachGroupPolicy", "PutUserPolicy", "PutRolePolicy",
		"UpdateAssumeRolePolicy", "DeactivateMFADevice", "StopLogging":
		verbs = append(verbs, activity.PrivilegeEscalation)
		what = firstOf(request.PolicyARN, request.PolicyName, request.RoleName, request.Name, request.UserName)
	case "CreateAccessKey":
		verbs = append(verbs, activity.ServiceAccountKey)
		what = request.UserName
	case "ConsoleLogin":
		var answer struct{ ConsoleLogin string }
		_ = json.Unmarshal(orNull(c.ResponseElements), &answer)
		if answer.ConsoleLogin == "Success" {
			verbs = append(verbs, activity.SignIn)
		}
	case "GetObject":
		if n := more.BytesTransferredOut; n >= 1 && n < 1<<62 && request.BucketName != "" {
			verbs = append(verbs, activity.DataExport)
			e.Bytes = int64(n)
			e.Resource = line("s3://%s", request.BucketName)
			what = e.Resource
		}
	case "AssumeRole":
		what = request.RoleARN
	}
	if own := c.UserIdentity.AccountID; c.RecipientAccountID != "" && own != "" && c.RecipientAccountID != own {
		verbs = append(verbs, activity.CrossAccountAccess)
		what = firstOf(what, "account "+c.RecipientAccountID)
	}
	e.Detail = line("%s", c.EventName)
	if what != "" {
		e.Detail = line("%s: %s", c.EventName, what)
	}
	return perVerb("CloudTrail record", id, verbs, e)
}

// cloudTrailUser is the user's name. For a role it is the name of the session, which sign-in sets to the person's.
func cloudTrailUser(u CloudTrailIdentity) string {
	if u.UserName != "" {
		return u.UserName
	}
	if u.Type == "AssumedRole" {
		_, session, _ := strings.Cut(u.PrincipalID, ":")
		return session
	}
	return ""
}

func orNull(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return []byte("null")
	}
	return raw
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}
