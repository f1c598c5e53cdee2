// Package riskclient is the learning system's client of the risk scorer. It caches for a short time what every page
// needs: the roster, the organisation's figures and its main causes of risk. While the risk scorer cannot be reached,
// it returns the cached answer with a *Stale error.
package riskclient

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// Client is a client of the risk scorer. Its methods are safe for concurrent use.
type Client struct {
	call    Call
	wall    func() time.Time
	Roster  Cache[[]risk.Standing]
	Figures Cache[risk.Organisation]
	Causes  Cache[[]Cause]

	mu       sync.Mutex
	compared map[string]*Cache[[]risk.Standing] // by the name of the other profile
	clock    *risk.Clock                        // last answer
	read     time.Time                          // wall clock of that answer
}

// New returns a client that sends requests by call; wall is the wall clock.
func New(call Call, wall func() time.Time) *Client {
	return &Client{
		call: call, wall: wall,
		Roster: Cache[[]risk.Standing]{
			Fresh:  time.Second,
			Usable: time.Second,
			AtMost: 10 * time.Second,
			Last:   10 * time.Minute,
		},
		Figures: Cache[risk.Organisation]{
			Fresh:  time.Second,
			Usable: 5 * time.Second,
			AtMost: time.Minute,
			Last:   10 * time.Minute,
		},
		Causes: Cache[[]Cause]{Fresh: 3 * time.Second, Usable: 5 * time.Minute, AtMost: time.Minute, Last: 10 * time.Minute},
	}
}

const longestAnswer = 64 << 20 // bytes

// get requests path for at most AskWithin and decodes the answer into v.
func (c *Client) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, AskWithin)
	defer cancel()
	return c.fetch(ctx, path, v)
}

// fetch requests path until ctx ends and decodes the answer into v.
func (c *Client) fetch(ctx context.Context, path string, v any) error {
	resp, err := c.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	return httpjson.ReadAnswer(resp, longestAnswer, v)
}

// Staff is People without those who were created for a run of an exercise. The organisation's figures and lists are
// about the staff only.
func (c *Client) Staff() ([]risk.Standing, error) {
	people, err := c.People()
	own := make([]risk.Standing, 0, len(people))
	for _, p := range people {
		if p.Run == "" {
			own = append(own, p)
		}
	}
	return own, err
}

// People is the roster with scores, the highest score first, those created for a run of an exercise included. With a
// *Stale error the list is an old one.
func (c *Client) People() ([]risk.Standing, error) {
	return c.Roster.Get(c.wall, func(ctx context.Context) ([]risk.Standing, error) {
		var list []risk.Standing
		if err := c.fetch(ctx, scorerapi.RoutePeople.Path()+"?runs=all", &list); err != nil {
			return nil, fmt.Errorf("read roster: %w", err)
		}
		return list, nil
	})
}

// Organisation is the organisation's figures. With a *Stale error they are old ones.
func (c *Client) Organisation() (risk.Organisation, error) {
	return c.Figures.Get(c.wall, func(ctx context.Context) (risk.Organisation, error) {
		var o risk.Organisation
		if err := c.fetch(ctx, scorerapi.RouteOrganisation.Path(), &o); err != nil {
			return o, fmt.Errorf("read organisation: %w", err)
		}
		return o, nil
	})
}

// ErrUnknownPerson means that the roster does not list the person.
var ErrUnknownPerson = errors.New("the roster does not list this person")

// Risk requests a person's current assessment: ErrUnknownPerson if the roster does not list the person.
func (c *Client) Risk(ctx context.Context, person string) (risk.Assessment, error) {
	var a risk.Assessment
	err := c.get(ctx, scorerapi.RouteRisk.For(person), &a)
	var answered *httpjson.Error
	if errors.As(err, &answered) && answered.Status == http.StatusNotFound {
		return a, ErrUnknownPerson
	}
	if err != nil {
		return a, fmt.Errorf("read risk: %w", err)
	}
	return a, nil
}

// Risks requests the assessments of several people, in their order. That of a person who has left is empty.
func (c *Client) Risks(ctx context.Context, people []risk.Standing) ([]risk.Assessment, error) {
	list := make([]risk.Assessment, len(people))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, p := range people {
		g.Go(func() error {
			a, err := c.Risk(ctx, p.ID)
			if errors.Is(err, ErrUnknownPerson) {
				return nil
			}
			list[i] = a
			return err
		})
	}
	return list, g.Wait()
}

// Cause is a verb that contributes to scores of the staff.
type Cause struct {
	Verb   activity.Verb
	People int   // number of people with this reason
	Count  int   // number of events
	Part   int64 // millionths of a score, summed over people
}

// MostAsked is the most people whose reasons make up the causes: those with the highest scores.
const MostAsked = 60

// Reasons are the causes of risk of the MostAsked people with the highest scores, the largest part first.
func (c *Client) Reasons() ([]Cause, error) {
	return c.Causes.Get(c.wall, func(ctx context.Context) ([]Cause, error) {
		people, err := c.Staff()
		if err != nil {
			return nil, err
		}
		all, err := c.Risks(ctx, people[:min(MostAsked, len(people))])
		if err != nil {
			return nil, err
		}
		return causesOf(all), nil
	})
}

// causesOf sums the reasons of assessments by verb, the largest part first.
func causesOf(all []risk.Assessment) []Cause {
	sum := map[activity.Verb]*Cause{}
	for _, a := range all {
		for _, r := range a.Reasons {
			cause := sum[r.Verb]
			if cause == nil {
				cause = &Cause{Verb: r.Verb}
				sum[r.Verb] = cause
			}
			cause.People++
			cause.Count += r.Count
			cause.Part += r.Part
		}
	}
	list := make([]Cause, 0, len(sum))
	for _, cause := range sum {
		list = append(list, *cause)
	}
	slices.SortFunc(list, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Verb, b.Verb))
	})
	return list
}

// now is the lab's time. While the risk scorer cannot be reached, it is computed from the last answer and its pace.
func (c *Client) now(ctx context.Context) (time.Time, error) {
	var read risk.Clock
	err := c.get(ctx, scorerapi.RouteClock.Path(), &read)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.clock, c.read = &read, c.wall()
		return read.Now, nil
	}
	if c.clock == nil {
		return time.Time{}, err
	}
	return c.clock.Now.Add(time.Duration(float64(c.wall().Sub(c.read)) * c.clock.Pace)), nil
}

// Send sends events to the risk scorer and returns their receipts, one for each event in the same order.
func (c *Client) Send(ctx context.Context, entries []activity.Entry) ([]activity.Receipt, error) {
	var body bytes.Buffer
	line := json.NewEncoder(&body)
	for _, e := range entries {
		if err := line.Encode(e); err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, AskWithin)
	defer cancel()
	resp, err := c.call(ctx, http.MethodPost, scorerapi.RouteEvents.Path(), "application/x-ndjson", body.Bytes())
	if err != nil {
		return nil, err
	}
	// A 422 with receipts means that no event could be stored; each receipt says why.
	rejected := resp.StatusCode == http.StatusUnprocessableEntity &&
		resp.Header.Get("Content-Type") == "application/x-ndjson"
	if resp.StatusCode != http.StatusOK && !rejected {
		if err := httpjson.ReadAnswer(resp, longestAnswer, nil); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("send events: unexpected status %d", resp.StatusCode)
	}
	defer resp.Body.Close()
	return readReceipts(resp.Body, entries)
}

// readReceipts reads one receipt for each entry, in their order.
func readReceipts(body io.Reader, entries []activity.Entry) ([]activity.Receipt, error) {
	var receipts []activity.Receipt
	if err := httpjson.Lines(body, func(r activity.Receipt) error {
		n := len(receipts)
		if n == len(entries) {
			return errors.New("more receipts than events")
		}
		if r.Seq != entries[n].Seq {
			return fmt.Errorf("want the receipt of event %d, not of %d", entries[n].Seq, r.Seq)
		}
		receipts = append(receipts, r)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	if len(receipts) < len(entries) {
		return nil, fmt.Errorf("read receipts: only %d of %d", len(receipts), len(entries))
	}
	return receipts, nil
}

// NowIn is the lab's time in a zone, given by its IANA name; UTC if it is unknown.
func (c *Client) NowIn(ctx context.Context, zone string) (time.Time, error) {
	now, err := c.now(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the lab's clock: %w", err)
	}
	return now.In(words.Location(zone)), nil
}

// named is a person's name and time zone by the roster.
type named struct{ Name, Zone string }

// Names returns a function that looks up people in the current roster. For a person whom it does not list the name is
// the id, and the zone UTC.
func (c *Client) Names() func(person string) named {
	all := map[string]named{}
	people, err := c.People()
	var old *Stale
	if err == nil || errors.As(err, &old) {
		for _, p := range people {
			all[p.ID] = named{p.Name, p.Zone}
		}
	}
	return func(person string) named {
		if n, ok := all[person]; ok {
			return n
		}
		return named{person, "UTC"}
	}
}

// PeopleWith is the roster with each person's score by another profile as well. It has one cache for each profile.
func (c *Client) PeopleWith(profile string) ([]risk.Standing, error) {
	c.mu.Lock()
	if c.compared == nil {
		c.compared = map[string]*Cache[[]risk.Standing]{}
	}
	kept := c.compared[profile]
	if kept == nil {
		kept = &Cache[[]risk.Standing]{
			Fresh:  c.Roster.Fresh,
			Usable: c.Roster.Usable,
			AtMost: time.Minute,
			Last:   c.Roster.Last,
		}
		c.compared[profile] = kept
	}
	c.mu.Unlock()
	return kept.Get(c.wall, func(ctx context.Context) ([]risk.Standing, error) {
		var list []risk.Standing
		query := url.Values{"shadow": {profile}}.Encode()
		if err := c.fetch(ctx, scorerapi.RoutePeople.Path()+"?"+query, &list); err != nil {
			return nil, fmt.Errorf("compare profiles: %w", err)
		}
		return list, nil
	})
}

// Call sends a request to a peer, as mesh.Client.Do does. The caller closes the body of the answer.
type Call func(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error)
