// Package riskclient asks the risk scorer on behalf of the learning system, and remembers for a moment what every page
// needs: the roster, the organisation's figures, the weightiest causes. While the scorer is away, an old answer stands
// in for a new one, and says so.
package riskclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Client asks the risk scorer, and remembers for a moment what every page needs.
type Client struct {
	call    Call
	wall    func() time.Time
	Roster  Cache[[]risk.Standing]
	Company Cache[risk.Organisation]
	Causes  Cache[[]Cause]

	mu       sync.Mutex
	compared map[string]*Cache[[]risk.Standing] // by the profile that is compared with
	clock    *risk.Clock
	read     time.Time // wall clock
}

// New makes a client that asks by call; wall is the wall clock.
func New(call Call, wall func() time.Time) *Client {
	return &Client{
		call: call, wall: wall,
		Roster: Cache[[]risk.Standing]{
			Fresh:  time.Second,
			Usable: time.Second,
			AtMost: 10 * time.Second,
			Last:   10 * time.Minute,
		},
		Company: Cache[risk.Organisation]{
			Fresh:  time.Second,
			Usable: 5 * time.Second,
			AtMost: time.Minute,
			Last:   10 * time.Minute,
		},
		Causes: Cache[[]Cause]{Fresh: 3 * time.Second, Usable: 5 * time.Minute, AtMost: time.Minute, Last: 10 * time.Minute},
	}
}

const (
	longestAnswer = 64 << 20
)

// get asks the scorer; a request of a page gives up after askWithin.
func (c *Client) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, AskWithin)
	defer cancel()
	return c.fetch(ctx, path, v)
}

// fetch asks the scorer for as long as ctx lasts.
func (c *Client) fetch(ctx context.Context, path string, v any) error {
	resp, err := c.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	return httpjson.ReadAnswer(resp, longestAnswer, v)
}

// Staff is everybody who works here, the highest score first, without those who were made for a run of an exercise: the
// company's figures and lists are of them alone. With *stale the list is an old one.
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

// People is everybody whom the roster lists, those of runs among them, the highest score first. With *stale the list is
// an old one.
func (c *Client) People() ([]risk.Standing, error) {
	return c.Roster.Get(c.wall, func(ctx context.Context) ([]risk.Standing, error) {
		var list []risk.Standing
		if err := c.fetch(ctx, scorerapi.RoutePeople.Path()+"?runs=all", &list); err != nil {
			return nil, fmt.Errorf("read roster: %w", err)
		}
		return list, nil
	})
}

// Organisation is the organisation's figures. With *Stale they are old ones.
func (c *Client) Organisation() (risk.Organisation, error) {
	return c.Company.Get(c.wall, func(ctx context.Context) (risk.Organisation, error) {
		var o risk.Organisation
		if err := c.fetch(ctx, scorerapi.RouteOrganisation.Path(), &o); err != nil {
			return o, fmt.Errorf("read organisation: %w", err)
		}
		return o, nil
	})
}

// ErrUnknownPerson says that the roster does not list the person.
var ErrUnknownPerson = errors.New("the roster does not list this person")

// Risk is a person's assessment of this moment.
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

// Risks are the assessments of several people, in their order. A person who has left meanwhile has an empty one.
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

// Cause is a verb that weighs on the company.
type Cause struct {
	Verb   activity.Verb
	People int   // on whom it weighs
	Count  int   // how often
	Part   int64 // whole millionths, summed over people
}

// MostAsked bounds the people whose reasons make up the company's: those with the highest scores.
const MostAsked = 60

// Reasons are the company's causes, the weightiest first, over the mostAsked people with the highest scores.
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
			if a.Part != b.Part {
				return int(min(1, max(-1, b.Part-a.Part)))
			}
			return bytes.Compare([]byte(a.Verb), []byte(b.Verb))
		})
		return list, nil
	})
}

// now is the lab's time: asked for, or carried on from the last answer by its pace while the scorer is away.
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

// Send hands in events, and answers with their receipts in the same order.
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
	// 422 with receipts: none of the events can be stored, and each receipt says why.
	if resp.StatusCode != http.StatusOK &&
		(resp.StatusCode != http.StatusUnprocessableEntity || resp.Header.Get("Content-Type") != "application/x-ndjson") {
		if err := httpjson.ReadAnswer(resp, longestAnswer, nil); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("hand in events: unexpected status %d", resp.StatusCode)
	}
	defer resp.Body.Close()
	var receipts []activity.Receipt
	if err := httpjson.Lines(resp.Body, func(r activity.Receipt) error {
		n := len(receipts)
		if n == len(entries) {
			return errors.New("there are more than events")
		}
		if r.Seq != entries[n].Seq {
			return fmt.Errorf("the one for %d is for %d", entries[n].Seq, r.Seq)
		}
		receipts = append(receipts, r)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	if len(receipts) < len(entries) {
		return nil, fmt.Errorf("read receipts: %d of %d", len(receipts), len(entries))
	}
	return receipts, nil
}

// NowIn is the lab's time, in the zone given (UTC where it is unknown).
func (c *Client) NowIn(ctx context.Context, zone string) (time.Time, error) {
	now, err := c.now(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the lab's clock: %w", err)
	}
	return now.In(words.Location(zone)), nil
}

// named is what the roster says of a person.
type named struct{ Name, Zone string }

// Names looks persons up in the roster as it is now; whom it does not list is called by the id.
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

// PeopleWith is everybody with what another profile says of them. Few ask, so each answer is kept for a while.
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
		if err := c.fetch(ctx, scorerapi.RoutePeople.Path()+"?"+url.Values{"shadow": {profile}}.Encode(), &list); err != nil {
			return nil, fmt.Errorf("compare profiles: %w", err)
		}
		return list, nil
	})
}

// Call sends one request to a peer; mesh's Client.Do is one. The caller closes the answer's body.
type Call func(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error)
