package llmgateway

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Quota limits the use by one caller or one person. A bucket holds the quota of one window and fills evenly.
type Quota struct {
	Requests int           // per window
	Tokens   int           // per window, of prompt, thought and answer together
	Window   time.Duration // how long an empty bucket takes to fill
}

// most is how many buckets are kept. The least recently used one is removed first; its owner then starts with a full
// one.
const most = 50_000

type buckets struct {
	quota Quota

	mu  sync.Mutex
	all map[string]*bucket
}

type bucket struct {
	requests, tokens *rate.Limiter
	used             time.Time
}

func newBuckets(q Quota) *buckets { return &buckets{quota: q, all: map[string]*bucket{}} }

func (b *buckets) of(name string, now time.Time) *bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.all[name]
	if x == nil {
		if len(b.all) >= most {
			b.forget(now)
		}
		x = &bucket{requests: limiter(b.quota.Requests, b.quota.Window), tokens: limiter(b.quota.Tokens, b.quota.Window)}
		b.all[name] = x
	}
	x.used = now
	return x
}

// forget removes the buckets that are full again or, if there are none, the least recently used one.
func (b *buckets) forget(now time.Time) {
	oldest := ""
	for name, x := range b.all {
		if now.Sub(x.used) > b.quota.Window {
			delete(b.all, name)
		} else if oldest == "" || x.used.Before(b.all[oldest].used) {
			oldest = name
		}
	}
	if len(b.all) >= most {
		delete(b.all, oldest)
	}
}

func limiter(n int, window time.Duration) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(n)/window.Seconds()), n)
}

// claim is what a request has taken from its buckets before its cost is known.
type claim struct {
	buckets  []*bucket
	estimate int
}

// take takes a request of about estimate tokens from all buckets or from none. If it takes none, it returns how long to
// wait.
func take(now time.Time, estimate int, of ...*bucket) (*claim, time.Duration) {
	var taken []*rate.Reservation
	var wait time.Duration
	for _, b := range of {
		tokens := min(estimate, b.tokens.Burst())
		for _, r := range []*rate.Reservation{b.requests.ReserveN(now, 1), b.tokens.ReserveN(now, tokens)} {
			taken = append(taken, r)
			if d := r.DelayFrom(now); r.OK() {
				wait = max(wait, d)
			} else {
				wait = max(wait, time.Hour) // a quota of zero
			}
		}
	}
	if wait > 0 {
		for _, r := range taken {
			r.CancelAt(now)
		}
		return nil, wait
	}
	return &claim{of, estimate}, 0
}

// charge takes what the request cost above the estimate. A bucket may become negative; then the next request waits.
func (c *claim) charge(now time.Time, used int) {
	for _, b := range c.buckets {
		for rest := used - c.estimate; rest > 0; {
			n := min(rest, b.tokens.Burst())
			if n == 0 {
				break
			}
			b.tokens.ReserveN(now, n)
			rest -= n
		}
	}
}
