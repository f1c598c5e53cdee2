package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/brianvoe/gofakeit/v7"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// shapes makes an empty record of each kind that a simulated vendor reports, in the vendor's own schema.
var shapes = map[string]func() any{
	"push":                           func() any { return &source.GitPush{} },
	"pull_request_review":            func() any { return &source.GitPullRequestReview{} },
	"secret_scanning_alert":          func() any { return &source.GitSecretScanningAlert{} },
	"secret_scanning_alert_location": func() any { return &source.GitSecretScanningAlertLocation{} },
	"dependabot_alert":               func() any { return &source.GitDependabotAlert{} },
	"webhook":                        func() any { return &source.JiraWebhook{} },
	"okta":                           func() any { return &source.OktaEvent{} },
	"cloudtrail":                     func() any { return &cloudTrail{} },
	"HEC envelope":                   func() any { return &source.HEC{} },
}

// cloudTrail is source.CloudTrail with types for its raw JSON, for which no random values could be made.
type cloudTrail struct {
	EventVersion       string                       `json:"eventVersion"`
	UserIdentity       source.CloudTrailIdentity    `json:"userIdentity"`
	EventTime          time.Time                    `json:"eventTime"`
	EventSource        string                       `json:"eventSource"`
	EventName          string                       `json:"eventName"`
	AWSRegion          string                       `json:"awsRegion"`
	SourceIPAddress    string                       `json:"sourceIPAddress"`
	UserAgent          string                       `json:"userAgent"`
	RequestParameters  source.CloudTrailRequest     `json:"requestParameters"`
	RequestID          string                       `json:"requestID"`
	EventID            string                       `json:"eventID"`
	ReadOnly           bool                         `json:"readOnly"`
	Resources          []source.CloudTrailResource  `json:"resources,omitempty"`
	EventType          string                       `json:"eventType"`
	ManagementEvent    bool                         `json:"managementEvent"`
	RecipientAccountID string                       `json:"recipientAccountId"`
	EventCategory      string                       `json:"eventCategory"`
	AdditionalData     *source.CloudTrailAdditional `json:"additionalEventData,omitempty"`
}

// made is what one side made in a round.
type made struct {
	labels  int
	acts    int
	bytes   int
	records []source.Record // by vendor, in order
	vendors []int           // where each vendor's records end
}

// synth compares making a company, with its answer key and all records of its people at their vendors, with filling the
// same vendors' schemas with random values. The peer is slower, so it makes only one in ten of the records, of the same
// kinds in the same proportions.
func synth(_ context.Context, s *stage) (*contest, error) {
	company := func() (made, error) {
		staff := people.Company(randomSeed, s.size.company, people.Published)
		acts := routine.Recorded(randomSeed, routine.Month(staff, s.size.days))
		acts = slices.DeleteFunc(acts, func(a routine.Act) bool { return a.Source == activity.Training })
		traces, err := world.Traces(people.Roster(staff), acts)
		if err != nil {
			return made{}, err
		}
		m := made{labels: len(people.Key(staff)), acts: len(acts)}
		for _, row := range source.Table {
			m.records = append(m.records, traces[string(row.Source)]...)
			m.vendors = append(m.vendors, len(m.records))
		}
		for _, r := range m.records {
			m.bytes += len(r.Body)
		}
		return m, nil
	}
	const share = 10
	model, err := company()
	if err != nil {
		return nil, err
	}
	if err := model.meaning(); err != nil {
		return nil, err
	}
	var kinds []string
	for i := 0; i < len(model.records); i += share {
		kind := model.records[i].Kind
		if shapes[kind] == nil {
			return nil, fmt.Errorf("a vendor reports %q, which the peer has no schema for", kind)
		}
		kinds = append(kinds, kind)
	}
	var ours, theirs made
	fake := gofakeit.New(randomSeed)
	return &contest{
		ours: side{len(model.records), func(context.Context) (int, float64, error) {
			return perCore(func() (n int, err error) {
				ours, err = company()
				return len(ours.records), err
			})
		}},
		peer: &side{len(kinds), func(context.Context) (int, float64, error) {
			theirs = made{}
			return perCore(func() (int, error) {
				for i, kind := range kinds {
					v := shapes[kind]()
					if err := fake.Struct(v); err != nil {
						return i, err
					}
					b, err := json.Marshal(v)
					if err != nil {
						return i, err
					}
					theirs.bytes += len(b)
					theirs.records = append(theirs.records, source.Record{Kind: kind, Body: b})
				}
				return len(kinds), nil
			})
		}},
		check: func(context.Context) (string, error) {
			if ours.labels != s.size.company {
				return fmt.Sprintf("%d people have a label, want %d", ours.labels, s.size.company), nil
			}
			same := slices.EqualFunc(
				ours.records,
				model.records,
				func(a, b source.Record) bool { return a.Kind == b.Kind && string(a.Body) == string(b.Body) },
			)
			if !same {
				return "the same seed made other records", nil
			}
			for _, r := range theirs.records {
				if !json.Valid(r.Body) {
					return "the peer made a " + r.Kind + " that is no JSON", nil
				}
			}
			return "", nil
		},
		notes: func() []Note {
			return []Note{
				{"ours, a record", "bytes", float64(ours.bytes) / float64(len(ours.records))},
				{"peer, a record", "bytes", float64(theirs.bytes) / float64(len(theirs.records))},
			}
		},
	}, nil
}

// joins is what a collector remembers between records.
type joins map[string][]byte

func (j joins) Get(key string) []byte        { return j[key] }
func (j joins) Put(key string, value []byte) { j[key] = value }
func (j joins) Delete(key string)            { delete(j, key) }

// meaning reads the records as the collectors do, and checks that every act becomes an event again. Some acts have
// several records.
func (m made) meaning() error {
	events, memory := map[string]bool{}, joins{}
	from := 0
	for i, row := range source.Table {
		for _, r := range m.records[from:m.vendors[i]] {
			found, err := row.Events(r, memory)
			if err != nil {
				return err
			}
			for _, e := range found {
				events[e.ID] = true
			}
		}
		from = m.vendors[i]
	}
	if len(events) < m.acts {
		return &shortfall{fmt.Sprintf("%d acts left records of %d events", m.acts, len(events))}
	}
	return nil
}
