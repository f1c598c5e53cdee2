package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// recordsPerDelivery is how many records a SIEM sends in one delivery.
const recordsPerDelivery = 100

// vendor is a SIEM that reports to the lab's collector.
type vendor struct {
	*insider
	node      *mesh.Node
	row       source.Row
	collector topology.Workload
	secret    string
	subjects  int // it reports on this many people, the first of the company
}

func (i *insider) vendor(ctx context.Context) (*vendor, error) {
	v := &vendor{
		insider:   i,
		subjects:  len(i.staff) - probed,
		collector: i.one(topology.KindCollector, string(activity.SIEM)),
	}
	var err error
	if v.row, err = source.Find(activity.SIEM); err != nil {
		return nil, err
	}
	if v.secret, err = i.secret(v.collector.Name); err != nil {
		return nil, err
	}
	v.node, err = i.member(ctx, i.one(topology.KindSimulator, string(activity.SIEM)).Name)
	return v, err
}

// finding is a vendor's record, and the event that it means.
type finding struct {
	body   []byte
	event  activity.Event
	person string
}

// findings returns n findings of one day of the lab, evenly over the day. They alternate between the subjects and
// between the kinds.
func (v *vendor) findings(ctx context.Context, n int) ([]finding, error) {
	day, err := v.nextDay(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]finding, n)
	for i := range list {
		v.number++
		person := v.staff[i%v.subjects]
		a := routine.Act{
			ID:     fmt.Sprintf("bench-%09d", v.number),
			At:     day.Add(time.Duration(i+1) * 24 * time.Hour / time.Duration(n+2)),
			Person: person.ID,
			Source: activity.SIEM,
			Verb:   source.FindingKinds[v.number%len(source.FindingKinds)].Verb,
			Detail: "a finding of the benchmark's",
		}
		if list[i], err = v.report(a); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// report makes the vendor's record of an act, and the event that it means.
func (v *vendor) report(a routine.Act) (finding, error) {
	traces, err := world.Traces(people.Roster(v.staff), []routine.Act{a})
	if err != nil {
		return finding{}, err
	}
	records := traces[string(activity.SIEM)]
	if len(records) != 1 {
		return finding{}, fmt.Errorf("act %s left %d records", a.ID, len(records))
	}
	events, err := v.row.Events(records[0], nil)
	if err != nil || len(events) != 1 {
		return finding{}, fmt.Errorf("act %s means %d events: %w", a.ID, len(events), err)
	}
	return finding{body: records[0].Body, event: events[0], person: a.Person}, nil
}

// deliver sends findings to the collector, a hundred at a time and by several callers. It repeats what the collector
// asks to send later.
func (v *vendor) deliver(ctx context.Context, list []finding) error {
	var parcels [][]byte
	for part := range slices.Chunk(list, recordsPerDelivery) {
		var b []byte
		for _, f := range part {
			b = append(b, f.body...)
		}
		parcels = append(parcels, b)
	}
	next := make(chan []byte, len(parcels))
	for _, p := range parcels {
		next <- p
	}
	close(next)
	_, _, err := concurrently(ctx, len(parcels), func(ctx context.Context) error { return v.post(ctx, <-next) })
	return err
}

// post delivers one body.
func (v *vendor) post(ctx context.Context, body []byte) error {
	route := v.row.Pushed[0].Route
	for {
		req, err := http.NewRequestWithContext(
			ctx,
			route.Method(),
			"https://"+v.collector.Name+route.Path(),
			bytes.NewReader(body),
		)
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Splunk "+v.secret)
		resp, err := v.node.Peer(v.collector.Name).HTTP().Do(req)
		if err != nil {
			return err
		}
		err = httpjson.ReadAnswer(resp, 1<<16, nil)
		if err == nil {
			return nil
		}
		if refusal := httpjson.FromError(err); refusal.RetryAfter <= 0 {
			return fmt.Errorf("deliver: %w", err)
		} else if err := wait.For(ctx, refusal.RetryAfter); err != nil {
			return err
		}
	}
}

// patience is how long the scorer may take for a round.
const patience = 2 * time.Minute

// awaitProcessed waits until everything that the collector has accepted was processed, and returns the collector's
// counts.
func (v *vendor) awaitProcessed(ctx context.Context) (collectorapi.Spool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var s collectorapi.Spool
		if err := v.op.Call(
			ctx, v.collector.Name, collectorapi.RouteSpool.Method(), collectorapi.RouteSpool.Path(), nil, &s,
		); err != nil {
			return s, err
		}
		if s.Watermark >= s.Seq {
			return s, nil
		}
		if err := wait.For(ctx, 2*time.Millisecond); err != nil {
			return s, fmt.Errorf("the scorer is at %d of %d: %w", s.Watermark, s.Seq, err)
		}
	}
}

// row is a row of the table risk.event, as both sides write it.
type row struct {
	id, person, source, verb string
	at                       time.Time
	event                    []byte
}

// rows returns the rows of findings, under ids of the peer's own and of people who are in no roster, so that they are
// not scored.
func (v *vendor) rows(list []finding) ([]row, error) {
	v.batch++
	rows := make([]row, len(list))
	for i, f := range list {
		text, err := json.Marshal(f.event)
		if err != nil {
			return nil, err
		}
		e := f.event
		rows[i] = row{fmt.Sprintf("%s/%d", e.ID, v.batch), f.person + "-", string(e.Source), string(e.Verb), e.At, text}
	}
	return rows, nil
}

// again appends the first of every ten once more.
func again[T any](list []T) []T {
	for i := range len(list) / 10 {
		list = append(list, list[10*i])
	}
	return list
}

// copied writes rows by COPY, and commits.
func (v *vendor) copied(ctx context.Context, rows []row, from, serial string) error {
	n, err := v.db.CopyFrom(
		ctx,
		pgx.Identifier{"risk", "event"},
		[]string{"id", "person", "source", "verb", "at", "event", "collector", "serial", "late"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			r := rows[i]
			return []any{r.id, r.person, r.source, r.verb, r.at, r.event, from, serial, false}, nil
		}),
	)
	if err == nil && n != int64(len(rows)) {
		err = &shortfall{fmt.Sprintf("COPY wrote %d of %d rows", n, len(rows))}
	}
	return err
}

// merged writes rows by one INSERT from arrays, and commits. It skips rows that are there already.
func (v *vendor) merged(ctx context.Context, rows []row, from, serial string) error {
	var ids, persons, sources, verbs, events []string
	var ats []time.Time
	for _, r := range rows {
		ids, persons, sources, verbs, ats, events = append(
			ids,
			r.id,
		), append(
			persons,
			r.person,
		), append(
			sources,
			r.source,
		), append(
			verbs,
			r.verb,
		), append(
			ats,
			r.at,
		), append(
			events,
			string(r.event),
		)
	}
	_, err := v.db.Exec(ctx, `
		INSERT INTO risk.event (id, person, source, verb, at, event, collector, serial, late)
		SELECT id, person, source, verb, at, event::jsonb, $7, $8, false
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
			AS r (id, person, source, verb, at, event)
		ON CONFLICT (id) DO NOTHING`, ids, persons, sources, verbs, ats, events, from, serial)
	return err
}

// ingest compares the way from a collector's acceptance to the scorer's watermark with COPY of the same rows into the
// same table.
func ingest(ctx context.Context, s *stage) (*contest, error) {
	return ingesting(
		ctx,
		s,
		func(list []finding) []finding { return list },
		func(list []row) []row { return list },
		(*vendor).copied,
	)
}

// ingestReplay is ingest with one in ten events delivered again. The peer is an INSERT that skips rows that are there.
func ingestReplay(ctx context.Context, s *stage) (*contest, error) {
	return ingesting(ctx, s, again[finding], again[row], (*vendor).merged)
}

func ingesting(
	ctx context.Context,
	s *stage,
	repeat func([]finding) []finding,
	repeatRows func([]row) []row,
	write func(*vendor, context.Context, []row, string, string) error,
) (*contest, error) {
	in, err := s.lab(ctx)
	if err != nil {
		return nil, err
	}
	v, err := in.vendor(ctx)
	if err != nil {
		return nil, err
	}
	from, serial := in.topo.ID(v.collector.Name).String(), "00"
	n := s.size.findings
	var delivered []finding
	var written []row
	return &contest{
		ours: side{len(repeat(make([]finding, n))), func(ctx context.Context) (int, float64, error) {
			fresh, err := v.findings(ctx, n)
			if err != nil {
				return 0, 0, err
			}
			before, err := v.awaitProcessed(ctx)
			if err != nil {
				return 0, 0, err
			}
			delivered = fresh
			begin := time.Now()
			if err := v.deliver(ctx, repeat(slices.Clip(fresh))); err != nil {
				return 0, 0, err
			}
			after, err := v.awaitProcessed(ctx)
			if err != nil {
				return 0, 0, err
			}
			took := time.Since(begin)
			done := after.Stored - before.Stored + after.Duplicate - before.Duplicate
			return int(done), float64(done) / took.Seconds(), nil
		}},
		peer: &side{len(repeatRows(make([]row, n))), func(ctx context.Context) (int, float64, error) {
			rows, err := v.rows(delivered) // of this round, or of the one before if the peer goes first
			if err != nil {
				return 0, 0, err
			}
			written = rows
			all := repeatRows(slices.Clip(rows))
			begin := time.Now()
			if err := write(v, ctx, all, from, serial); err != nil {
				return 0, 0, err
			}
			return len(all), float64(len(all)) / time.Since(begin).Seconds(), nil
		}},
		check: func(ctx context.Context) (string, error) {
			ours := make([]row, len(delivered))
			for i, f := range delivered {
				ours[i] = row{id: f.event.ID, person: f.person, verb: string(f.event.Verb), at: f.event.At}
			}
			for side, rows := range map[string][]row{"ours": ours, "the peer's": written} {
				if missing, err := v.missing(ctx, rows); missing != "" || err != nil {
					return side + ": " + missing, err
				}
			}
			return v.unscored(ctx)
		},
	}, nil
}

// missing compares rows with those of the table.
func (v *vendor) missing(ctx context.Context, want []row) (string, error) {
	byID := make(map[string]row, len(want))
	ids := make([]string, len(want))
	for i, r := range want {
		byID[r.id], ids[i] = r, r.id
	}
	rows, err := v.db.Query(ctx, `SELECT id, coalesce(person, ''), verb, at FROM risk.event WHERE id = ANY ($1)`, ids)
	if err != nil {
		return "", err
	}
	found, wrong := 0, ""
	var got row
	if _, err := pgx.ForEachRow(rows, []any{&got.id, &got.person, &got.verb, &got.at}, func() error {
		found++
		if w := byID[got.id]; got.person != w.person || got.verb != w.verb || !got.at.Equal(w.at) {
			wrong = fmt.Sprintf(
				"event %s is %s of %s at %s, want %s of %s at %s", got.id, got.verb, got.person, got.at, w.verb, w.person, w.at,
			)
		}
		return nil
	}); err != nil {
		return "", err
	}
	if found != len(byID) {
		wrong = fmt.Sprintf("%d of %d events are stored", found, len(byID))
	}
	return wrong, nil
}

// unscored says whose newest event is in no score.
func (v *vendor) unscored(ctx context.Context) (string, error) {
	var n int
	err := v.db.QueryRow(ctx, `
		SELECT count(*) FROM people.person p
		WHERE position > 0 AND NOT EXISTS (
			SELECT FROM risk.score s WHERE s.person = p.id AND s.position = p.position)`).Scan(&n)
	if err != nil || n == 0 {
		return "", err
	}
	return fmt.Sprintf("%d people's newest event is not in their score", n), nil
}
