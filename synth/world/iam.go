package world

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

const (
	defaultBucket = "s3://customer-exports"
	ownAccount    = "123456789012"
	otherAccount  = "210987654321"
)

func iamRecords(a routine.Act, p risk.Person, _ cast) ([]record, error) {
	w := &written{}
	login, user := account(p, "okta"), account(p, "aws")
	switch a.Verb {
	case activity.SignIn, activity.OffHoursAccess, activity.MFADenied:
		if login == "" {
			return nil, fmt.Errorf("act %s: %s has no account at okta", a.ID, p.ID)
		}
		return w.keep("okta", oktaEvent(a, p, login)).list, w.err
	}
	if user == "" {
		return nil, fmt.Errorf("act %s: %s has no account at aws", a.ID, p.ID)
	}
	d := digest(a, "aws")
	c := source.CloudTrail{
		EventVersion: "1.11", EventTime: a.At.UTC().Truncate(time.Second), EventSource: "iam.amazonaws.com",
		AWSRegion: "eu-central-1", SourceIPAddress: address(p), UserAgent: "aws-cli/2.31.0",
		RequestID: guid("request/" + a.ID), EventID: guid("cloudtrail/" + a.ID), EventType: "AwsApiCall",
		ManagementEvent: true, RecipientAccountID: ownAccount, EventCategory: "Management",
		UserIdentity: source.CloudTrailIdentity{
			Type: "IAMUser", PrincipalID: "AIDA" + strings.ToUpper(hex.EncodeToString(d[:8])),
			ARN: "arn:aws:iam::" + ownAccount + ":user/" + user, AccountID: ownAccount, UserName: user,
		},
	}
	var request source.CloudTrailRequest
	var answer, more any
	switch a.Verb {
	case activity.PrivilegeEscalation:
		c.EventName = "AttachUserPolicy"
		request.UserName, request.PolicyARN = user, "arn:aws:iam::aws:policy/"+orElse(a.Resource, "AdministratorAccess")
	case activity.ServiceAccountKey:
		c.EventName = "CreateAccessKey"
		request.UserName = orElse(a.Resource, "svc-batch")
		answer = createdKey{createdKeyBody{
			UserName: request.UserName, Status: "Active", AccessKeyID: fakeSecret(a),
			CreateDate: a.At.UTC().Format("Jan 2, 2006 3:04:05 PM"),
		}}
	case activity.CrossAccountAccess:
		c.EventName, c.EventSource, c.ReadOnly = "AssumeRole", "sts.amazonaws.com", true
		c.RecipientAccountID = orElse(a.Resource, otherAccount)
		request.RoleARN = "arn:aws:iam::" + c.RecipientAccountID + ":role/deployer"
	case activity.DataExport:
		c.EventName, c.EventSource, c.EventCategory = "GetObject", "s3.amazonaws.com", "Data"
		c.ReadOnly, c.ManagementEvent = true, false
		bucket := strings.TrimPrefix(orElse(a.Resource, defaultBucket), "s3://")
		request.BucketName, request.Key = bucket, "export/"+a.At.UTC().Format(time.DateOnly)+".parquet"
		more = source.CloudTrailAdditional{BytesTransferredOut: float64(max(1, a.Bytes))}
		c.Resources = []source.CloudTrailResource{
			{Type: "AWS::S3::Object", ARN: "arn:aws:s3:::" + bucket + "/" + request.Key},
			{AccountID: ownAccount, Type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::" + bucket},
		}
	case activity.UnusedPermission:
		c.EventName, c.EventSource, c.EventType = "UnusedAccessFinding", "access-analyzer.amazonaws.com", "AwsServiceEvent"
		c.UserIdentity = source.CloudTrailIdentity{
			Type: "AWSService", AccountID: ownAccount, InvokedBy: "access-analyzer.amazonaws.com",
		}
		c.ServiceEventDetails = w.raw(source.AccessAnalyzerFinding{
			ID: guid("finding/" + a.ID), FindingType: "UnusedPermission", Status: "ACTIVE",
			Resource: "arn:aws:iam::" + ownAccount + ":user/" + user, ResourceType: "AWS::IAM::User",
		})
	default:
		return nil, unsupported(a)
	}
	c.RequestParameters, c.ResponseElements = w.raw(request), w.raw(answer)
	if more != nil {
		c.AdditionalEventData = w.raw(more)
	}
	return w.add("cloudtrail", c).list, w.err
}

type createdKey struct {
	AccessKey createdKeyBody `json:"accessKey"`
}

type createdKeyBody struct {
	UserName    string `json:"userName"`
	Status      string `json:"status"`
	AccessKeyID string `json:"accessKeyId"`
	CreateDate  string `json:"createDate"`
}

// address is a person's own address, from the blocks reserved for documentation.
func address(p risk.Person) string {
	n := number("address/" + p.ID)
	return fmt.Sprintf("%s.%d", []string{"192.0.2", "198.51.100", "203.0.113"}[n%3], 1+n/3%250)
}

func oktaEvent(a routine.Act, p risk.Person, login string) source.OktaEvent {
	place := source.OktaPlace{
		City: "Frankfurt am Main", State: "Hesse", Country: "Germany", PostalCode: "60313",
		Geolocation: source.OktaGeolocation{Lat: 50.1155, Lon: 8.6842},
	}
	browser := source.OktaUserAgent{
		RawUserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0", OS: "Linux",
		Browser: "FIREFOX",
	}
	session := "idx" + sha1Like(a, "session")[:20]
	ip := address(p)
	id := "00u" + guid("okta/" + login)[:8] + guid("okta/" + login)[24:33]
	e := source.OktaEvent{
		Actor: source.OktaActor{ID: id, Type: "User", AlternateID: login, DisplayName: p.Name},
		Client: source.OktaClient{
			UserAgent: browser, Zone: "null", Device: "Computer", IPAddress: ip, GeographicalContext: place,
		},
		AuthenticationContext: source.OktaAuthentication{RootSessionID: session, ExternalSessionID: session},
		Outcome:               source.OktaOutcome{Result: "SUCCESS"},
		Published:             a.At.UTC().Truncate(time.Millisecond), Severity: "INFO", Version: "0", UUID: guid("okta/" +
			a.ID),
		DebugContext: source.OktaDebug{DebugData: map[string]string{
			source.OktaLocalTime: a.At.Truncate(time.Millisecond).Format(time.RFC3339Nano),
			"requestUri":         "/oauth2/v1/authorize",
		}},
		Transaction: source.OktaTransaction{Type: "WEB", ID: sha1Like(a, "transaction")[:27], Detail: map[string]string{}},
		Request:     source.OktaRequest{IPChain: []source.OktaHop{{IP: ip, GeographicalContext: place, Version: "V4"}}},
		Target:      []source.OktaActor{},
	}
	switch a.Verb {
	case activity.SignIn:
		e.EventType, e.DisplayMessage = "user.session.start", "User login to Okta"
	case activity.MFADenied:
		e.EventType, e.DisplayMessage, e.Severity = "user.mfa.okta_verify.deny_push", "User rejected Okta push verify", "WARN"
		reason := "User rejected"
		e.Outcome = source.OktaOutcome{Result: "FAILURE", Reason: &reason}
	case activity.OffHoursAccess:
		e.EventType, e.DisplayMessage = "user.authentication.sso", "User single sign on to app"
		app := orElse(a.Resource, "vault")
		e.Target = []source.OktaActor{{
			ID: "0oa" + sha1Like(a, "app")[:17], Type: "AppInstance", AlternateID: app, DisplayName: app,
			DetailEntry: map[string]string{"signOnModeType": "OPENID_CONNECT", source.OktaSensitivity: "restricted"},
		}}
		if !source.OffHours(a.At) {
			e.DebugContext.DebugData[source.OktaAccessWindow] = "outside" // of this person's working hours
		}
	}
	return e
}
