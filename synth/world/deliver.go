package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/routine"
)

// parcel is one delivery.
type parcel struct {
	id      string
	header  http.Header
	body    []byte
	records int
}

// sendFunc sends one request to the workload that serves route.
type sendFunc func(ctx context.Context, route topology.Route, h http.Header, body []byte) (*http.Response, error)

// writer writes and sends the records of a source.
type writer struct {
	records func(routine.Act, risk.Person, cast) ([]record, error)
	wrap    func(one *parcel, secret []byte, list []source.Record) error // sets body and header
}

var writers = map[activity.Source]writer{
	activity.Git:  {gitRecords, wrapGit},
	activity.Jira: {jiraRecords, wrapJira},
	activity.IAM:  {iamRecords, wrapIAM},
	activity.SIEM: {siemRecords, wrapSIEM},
}

// wrap signs a delivery as the vendor does. The delivery's id is derived from the play's, so that it is recognised when
// the same play is delivered again, for example after a restart.
func (w *World) wrap(p *play, name string, list []source.Record) (parcel, error) {
	one := parcel{id: guid(p.ID + "/" + name), header: http.Header{"Content-Type": {"application/json"}},
		records: len(list)}
	return one, writers[w.source].wrap(&one, w.secret, list)
}

func wrapGit(one *parcel, secret []byte, list []source.Record) error {
	one.body = list[0].Body
	one.header.Set("User-Agent", "GitHub-Hookshot/2f4c1d9")
	one.header.Set("X-GitHub-Event", list[0].Kind)
	one.header.Set("X-GitHub-Delivery", one.id)
	one.header.Set("X-GitHub-Hook-ID", "292430182")
	one.header.Set("X-GitHub-Hook-Installation-Target-Type", "organization")
	one.header.Set("X-Hub-Signature-256", source.Sign(secret, one.body))
	return nil
}

func wrapJira(one *parcel, secret []byte, list []source.Record) error {
	one.body = list[0].Body
	one.header.Set("User-Agent", "Atlassian Webhook HTTP Client")
	one.header.Set("X-Atlassian-Webhook-Identifier", one.id)
	one.header.Set("X-Hub-Signature", source.Sign(secret, one.body))
	return nil
}

// wrapIAM writes a CloudTrail log file, which is not signed.
func wrapIAM(one *parcel, _ []byte, list []source.Record) error {
	file := struct{ Records []json.RawMessage }{}
	for _, r := range list {
		file.Records = append(file.Records, r.Body)
	}
	b, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("write CloudTrail file: %w", err)
	}
	one.body = b
	return nil
}

func wrapSIEM(one *parcel, secret []byte, list []source.Record) error {
	for _, r := range list {
		one.body = append(one.body, r.Body...)
	}
	one.header.Set("Authorization", "Splunk "+string(secret))
	return nil
}

// hand delivers one parcel until it is acknowledged or finally refused. After a time-out, a failed connection, a 5xx,
// 408 or 429 it is delivered again with the same id; also after a refusal of the mesh (401), since identities may
// return.
func (w *World) hand(ctx context.Context, p *play, one parcel) error {
	pause := w.first
	for {
		again, after, err := w.try(ctx, p, one)
		if !again {
			return err
		}
		p.update(func(s *Status) { s.Retries, s.Error = s.Retries+1, err.Error() })
		if err := wait.For(ctx, max(pause, after)); err != nil {
			return err
		}
		pause = min(pause*2, w.longest)
	}
}

func (w *World) try(ctx context.Context, p *play, one parcel) (again bool, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as long as GitHub waits
	defer cancel()
	resp, err := w.send(ctx, w.row.Pushed[0].Route, one.header, one.body)
	if err != nil {
		return true, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return true, 0, err
	}
	switch code := resp.StatusCode; {
	case code < 300:
		p.update(func(s *Status) {
			s.Delivered += one.records
			s.Error = ""
			if bytes.Contains(text, []byte(`"duplicate"`)) {
				s.Duplicates += one.records
			}
		})
		return false, 0, nil
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout ||
		resp.Header.Get("Mesh-Reason") != "":
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n <= 60 {
			after = time.Duration(n) * time.Second
		}
		return true, after, fmt.Errorf("%s: %d %s", w.row.Pushed[0].Route, code, resp.Header.Get("Mesh-Reason"))
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	refusal := httpjson.FromError(httpjson.ReadAnswer(resp, 1<<16, nil))
	p.update(func(s *Status) { s.Refused[refusal.Code] += one.records })
	return false, 0, nil
}
