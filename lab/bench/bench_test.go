package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// tiny is the least size at which everything happens once.
var tiny = size{handshakes: 16, requests: 40, people: 200, company: 50, days: 2, findings: 100, visits: 2}

func TestTheMedianIsTheMiddleOrBetweenTheTwo(t *testing.T) {
	for _, c := range []struct {
		list []float64
		want float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 100}, 3.5},
	} {
		given := slices.Clone(c.list)
		if got := median(c.list); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.list, got, c.want)
		}
		if !slices.Equal(given, c.list) {
			t.Errorf("median put %v into another order: %v", given, c.list)
		}
	}
}

func TestTheSpreadIsOfTheRatiosAndNotOfTheSides(t *testing.T) {
	var r Result
	r.fill([]measured{{ours: 10, peer: 10}, {ours: 40, peer: 20}, {ours: 30, peer: 10}}, false)
	if want := (Spread{Median: 2, Min: 1, Max: 3}); *r.Ratio != want {
		t.Errorf("ratio %+v, want %+v", *r.Ratio, want)
	}
	if r.Ours.Median != 30 || r.Peer.Median != 10 {
		t.Errorf("medians %v and %v, want 30 and 10", r.Ours.Median, r.Peer.Median)
	}
	var alone Result
	alone.fill([]measured{{ours: 5}, {ours: 7}, {ours: 6}}, true)
	if alone.Ratio != nil || alone.Peer != nil || alone.Ours.Median != 6 || len(alone.Rounds) != 3 {
		t.Errorf("without a peer: %+v, want its own median of 6 and no ratio", alone)
	}
}

func TestAQuantileIsAValueThatWasMeasured(t *testing.T) {
	var list []float64
	for i := range 100 {
		list = append(list, float64(100-i))
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}

// scripted is a contest that records the order of the sides.
func scripted(played *[]string) *contest {
	plays := func(name string) func(context.Context) (int, float64, error) {
		return func(context.Context) (int, float64, error) {
			*played = append(*played, name)
			return 10, float64(len(*played)), nil
		}
	}
	return &contest{
		ours: side{10, plays("ours")},
		peer: &side{10, plays("peer")},
		check: func(context.Context) (string, error) {
			*played = append(*played, "check")
			return "", nil
		},
	}
}

func TestTheSidesTakeTurnsAndWhoBeginsAlternates(t *testing.T) {
	var played []string
	rounds, err := scripted(&played).play(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ours", "peer", "check", "peer", "ours", "check", "ours", "peer", "check", "peer", "ours", "check"}
	if diff := cmp.Diff(want, played); diff != "" {
		t.Errorf("who played (-want +got):\n%s", diff)
	}
	if len(rounds) != 3 {
		t.Errorf("%d rounds count, want 3: the first one warms up", len(rounds))
	}
	for _, m := range rounds {
		if m.ours <= 2 || m.peer <= 2 {
			t.Errorf("the round that warms up is among those that count: %+v", m)
		}
	}
}

func TestASideThatDoesLessIsNotMeasured(t *testing.T) {
	for what, spoil := range map[string]func(*contest){
		"ours, round 1: 9 of 10": func(c *contest) {
			n := 0
			c.ours.run = func(context.Context) (int, float64, error) { n++; return 11 - n, 1, nil }
		},
		"peer, round 0: 3 of 10": func(c *contest) {
			c.peer.run = func(context.Context) (int, float64, error) { return 3, 1, nil }
		},
		"round 0: the bread is missing": func(c *contest) {
			c.check = func(context.Context) (string, error) { return "the bread is missing", nil }
		},
	} {
		var played []string
		c := scripted(&played)
		spoil(c)
		_, err := c.play(t.Context(), 3)
		var short *shortfall
		if !errors.As(err, &short) || short.what != what {
			t.Errorf("%v, want a shortfall: %s", err, what)
		}
	}
}

func TestAFailedBenchmarkIsInTheReportAndInTheError(t *testing.T) {
	list := []Benchmark{
		{ID: "lazy", Unit: "loaves/s", Bound: AtLeast, begin: func(context.Context, *stage) (*contest, error) {
			return &contest{ours: side{2, func(context.Context) (int, float64, error) { return 1, 1, nil }}}, nil
		}},
		{ID: "diligent", Unit: "loaves/s", Bound: AtLeast, begin: func(context.Context, *stage) (*contest, error) {
			return &contest{ours: side{2, func(context.Context) (int, float64, error) { return 2, 4, nil }}}, nil
		}},
	}
	r, err := measure(t.Context(), list, Plan{Rounds: 2}, progress.Quiet{})
	if err == nil || !strings.Contains(err.Error(), "lazy: did less than it should: ours, round 0: 1 of 2") {
		t.Errorf("%v, want what was missing", err)
	}
	if len(r.Benchmarks) != 2 || r.Benchmarks[0].Failed == "" || r.Benchmarks[1].Failed != "" ||
		r.Benchmarks[1].Ours.Median != 4 {
		t.Errorf("%+v, want one that failed and one that was measured all the same", r.Benchmarks)
	}
	var text bytes.Buffer
	if err := WriteText(&text, r); err != nil || !strings.Contains(text.String(), "failed") {
		t.Errorf("the table does not say which failed: %v\n%s", err, &text)
	}
}

func TestALabThatCannotBeHadEndsTheRun(t *testing.T) {
	why := errors.New("no bricks")
	begun := 0
	begin := func(context.Context, *stage) (*contest, error) { begun++; return nil, errors.New("unreachable") }
	list := []Benchmark{{ID: "one", Needs: ALab, begin: begin}, {ID: "two", Needs: ALab, begin: begin}}
	tries := 0
	_, err := measure(
		t.Context(),
		list,
		Plan{Rounds: 1, Lab: func(context.Context) (*Inside, error) { tries++; return nil, why }},
		progress.Quiet{},
	)
	if !errors.Is(err, why) || !errors.Is(err, errNoLab) || tries != 1 || begun != 0 {
		t.Errorf("%v after %d tries and %d beginnings, want %v after one and none", err, tries, begun, why)
	}
}

func TestAnInterruptedRunEndsWhatItBegan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := false
	list := []Benchmark{{ID: "endless", begin: func(context.Context, *stage) (*contest, error) {
		return &contest{
			ours: side{1, func(ctx context.Context) (int, float64, error) { cancel(); return 0, 0, ctx.Err() }},
			end:  func() error { ended = true; return nil },
		}, nil
	}}}
	if _, err := measure(ctx, list, Plan{Rounds: 3}, progress.Quiet{}); !errors.Is(err, context.Canceled) || !ended {
		t.Errorf("%v, ended %v; want it cancelled and ended", err, ended)
	}
}

func TestUnknownNamesAreRefusedWithTheList(t *testing.T) {
	_, err := Pick([]string{"handshake", "speed", "luck"})
	if !errors.Is(err, ErrUnknown) ||
		!strings.Contains(err.Error(), "speed, luck; there are "+strings.Join(Names(), ", ")) {
		t.Errorf("%v, want both names refused, and all that there are", err)
	}
	if _, err := Measure(t.Context(), Plan{Names: []string{"luck"}, Rounds: 1}, progress.Quiet{}); !errors.Is(
		err,
		ErrUnknown,
	) {
		t.Errorf("%v, want %v", err, ErrUnknown)
	}
	list, err := Pick([]string{"synth", "handshake", "synth"})
	if err != nil || len(list) != 2 || list[0].ID != "handshake" || list[1].ID != "synth" {
		t.Errorf("%v, %v; want each once, in the list's order", list, err)
	}
}

func TestEveryBenchmarkSaysWhatItMeasuresAndWhatIsGood(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range All() {
		if b.ID == "" || seen[b.ID] || b.What == "" || b.Unit == "" || b.Good == 0 || b.Goal == 0 || b.begin == nil {
			t.Errorf("%+v: something is missing, or it stands twice", b)
		}
		if b.Bound == AtLeast && b.Goal < b.Good || b.Bound == AtMost && b.Goal > b.Good ||
			b.Bound != AtLeast && b.Bound != AtMost {
			t.Errorf("%s: its goal of %v is easier than its good of %v", b.ID, b.Goal, b.Good)
		}
		seen[b.ID] = true
	}
}

// TestEachBenchmarkOfThisProcessPlaysARound runs one tiny round of each benchmark. The benchmarks check counts and
// contents themselves.
func TestEachBenchmarkOfThisProcessPlaysARound(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var names []string
	for _, b := range All() {
		if b.Needs == Nothing {
			names = append(names, b.ID)
		}
	}
	r, err := Measure(t.Context(), Plan{Names: names, Rounds: 1, size: tiny}, progress.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Benchmarks) != len(names) || len(names) < 4 {
		t.Fatalf("%d of %d were measured", len(r.Benchmarks), len(names))
	}
	for _, b := range r.Benchmarks {
		if len(b.Rounds) != 1 || b.Ratio == nil || b.Ratio.Median <= 0 || b.Ours.Median <= 0 || b.Peer.Median <= 0 {
			t.Errorf("%s: %+v, want one round with a ratio", b.ID, b)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	var text bytes.Buffer
	if err := WriteText(&text, r); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(text.String(), "\n"+name+" ") {
			t.Errorf("the table lacks %s:\n%s", name, &text)
		}
	}
}

func TestAScoreThatLacksAnEventIsMissed(t *testing.T) {
	c, err := score(t.Context(), &stage{size: tiny, rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []side{c.ours, *c.peer} {
		if _, _, err := run.run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if missing, err := c.check(t.Context()); missing != "" || err != nil {
		t.Fatalf("a whole round: %q, %v", missing, err)
	}
	// The peer opens the next part; our side, which would score it, does not run.
	if _, _, err := c.peer.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if missing, err := c.check(t.Context()); missing == "" || err != nil {
		t.Errorf("a part that was not scored: %q, %v; want a fault", missing, err)
	}
}

func TestABookThatLacksARiskyEventIsMissed(t *testing.T) {
	profile, err := risk.ProfileByName(risk.Default)
	if err != nil {
		t.Fatal(err)
	}
	e := activity.Event{ID: "git:1", At: risk.Epoch, Person: "mira", Source: activity.Git, Verb: activity.SecretCommitted}
	c := &scored{
		profile: profile,
		roles:   map[string]risk.Role{"mira": risk.BackendDeveloper},
		part:    []activity.Event{e},
		decoded: []activity.Event{e},
		at:      e.At,
		whole:   map[string][]activity.Event{"mira": {e}},
		books:   map[string]*risk.PersonState{"mira": risk.NewPersonState(profile)},
	}
	if missing := c.missing(); !strings.Contains(missing, "mira is scored") {
		t.Errorf("an empty book: %q, want mira's score to be missed", missing)
	}
	c.books["mira"].Add(e, e.At)
	if missing := c.missing(); missing != "" {
		t.Errorf("a whole book: %q", missing)
	}
}

func TestRequestsThatNobodyDecidedAreMissed(t *testing.T) {
	c, err := requests(t.Context(), &stage{size: tiny})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.end(); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := c.ours.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if missing, err := c.check(t.Context()); !strings.Contains(missing, "the peer's handler answered 0 of 40") ||
		err != nil {
		t.Errorf("a round without the peer: %q, %v", missing, err)
	}
}

func TestALabThatIsNotWholeIsNotUpAndIsTakenDownAllTheSame(t *testing.T) {
	ready := []lab.WorkloadStatus{{Name: "one", Ready: true}, {Name: "two", Ready: true}}
	downs := 0
	for want, st := range map[string]lab.Status{
		"":           {Healthy: true, Seeded: true, Workloads: ready},
		"no history": {Healthy: true, Workloads: ready},
		"not heal":   {Seeded: true, Workloads: ready},
		"1 of 2":     {Healthy: true, Seeded: true, Workloads: ready[:1]},
	} {
		c, err := upLocal(t.Context(), &stage{up: &UpLocal{
			Up:    func(context.Context) (lab.Status, error) { return st, nil },
			Again: func(context.Context) error { return nil },
			Down:  func(context.Context) error { downs++; return nil },
			Floor: func(context.Context) (int, time.Duration, error) { return 2, time.Second, nil },
		}})
		if err != nil {
			t.Fatal(err)
		}
		before := downs
		_, err = c.play(t.Context(), 1)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", st, err, want)
		}
		if downs == before {
			t.Errorf("%+v: nothing was taken down", st)
		}
	}
}

func TestTheJSONHasThePromisedKeys(t *testing.T) {
	list := []Benchmark{
		{
			ID:    "with",
			What:  "a",
			Unit:  "x/s",
			Good:  1,
			Goal:  2,
			Bound: AtLeast,
			begin: func(context.Context, *stage) (*contest, error) {
				var played []string
				return scripted(&played), nil
			},
		},
		{
			ID:    "without",
			What:  "b",
			Unit:  "ms",
			Good:  2,
			Goal:  1,
			Bound: AtMost,
			begin: func(context.Context, *stage) (*contest, error) {
				return &contest{ours: side{1, func(context.Context) (int, float64, error) { return 1, 1, nil }}}, nil
			},
		},
	}
	r, err := measure(t.Context(), list, Plan{Rounds: 2}, progress.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := WriteJSON(&text, r); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(
		`benchmarks.[].bound benchmarks.[].good benchmarks.[].goal benchmarks.[].id
		benchmarks.[].ours.median benchmarks.[].ours.unit
		benchmarks.[].peer benchmarks.[].peer.median benchmarks.[].peer.unit
		benchmarks.[].ratio benchmarks.[].ratio.max benchmarks.[].ratio.median benchmarks.[].ratio.min
		benchmarks.[].rounds.[].ours benchmarks.[].rounds.[].peer benchmarks.[].rounds.[].ratio benchmarks.[].what
		date load.after.[] load.before.[]
		machine.cores machine.cpu machine.kernel machine.memory_bytes machine.system
		versions.go versions.lab versions.postgresql`,
	)
	keys := map[string]bool{}
	leaves(got, "", keys)
	var paths []string
	for k := range keys {
		paths = append(paths, k)
	}
	slices.Sort(paths)
	slices.Sort(want)
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// leaves collects the paths of all values.
func leaves(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			leaves(x, strings.TrimPrefix(path+"."+k, "."), into)
		}
	case []any:
		for _, x := range v {
			leaves(x, path+".[]", into)
		}
	default:
		into[path] = true
	}
}

func TestWhatIsBetterIsOnTheRightSideOfItsGoal(t *testing.T) {
	for _, c := range []struct {
		bound Bound
		ratio float64
		want  string
	}{
		{AtLeast, 2, "goal"}, {AtLeast, 1.5, "good"}, {AtLeast, 0.5, "below"},
		{AtMost, 0.5, "goal"}, {AtMost, 1.5, "good"}, {AtMost, 3, "below"},
	} {
		r := Result{Bound: c.bound, Good: 1, Goal: 2, Ratio: &Spread{Median: c.ratio}}
		if c.bound == AtMost {
			r.Good, r.Goal = 2, 1
		}
		if got := r.verdict(); got != c.want {
			t.Errorf("%s, %v: %s, want %s", c.bound, c.ratio, got, c.want)
		}
	}
	r := Result{Bound: AtMost, Good: 2, Goal: 1, Ours: Value{Median: 1.5}}
	if got := r.verdict(); got != "good" {
		t.Errorf("without a ratio the value counts: %s, want good", got)
	}
}

func TestOneInTenIsDeliveredAgain(t *testing.T) {
	for n, want := range map[int]int{0: 0, 9: 9, 10: 11, 100: 110} {
		list := make([]int, n)
		for i := range list {
			list[i] = i
		}
		got := again(slices.Clip(list))
		if len(got) != want || !slices.Equal(got[:n], list) {
			t.Errorf("%d of %d, want %d and the first ones as they were", len(got), n, want)
		}
		for _, x := range got[n:] {
			if !slices.Contains(list, x) {
				t.Errorf("%v is new", x)
			}
		}
	}
}

func TestDigitsAreThoseThatMatter(t *testing.T) {
	var got []string
	for _, v := range []float64{0, 0.12345, 1.2345, 12.345, 123.45, 98765.4, 250} {
		got = append(got, digits(v))
	}
	if diff := cmp.Diff("[0 0.123 1.23 12.3 123 98765 250]", fmt.Sprint(got)); diff != "" {
		t.Error(diff)
	}
}
