package risk

import (
	"math/big"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// decayingSums are the parts of each group's Σ α · N.
type decayingSums [activity.Groups]decayingSum

func (p *Profile) add(t *decayingSums, w weightedEvent) {
	switch {
	case w.n == 0 && !w.decays:
	case w.decays:
		t[w.group].addDecaying(w.alpha, w.event.At, time.Duration(p.HalfLife), w.lessons)
	default:
		t[w.group].plain[min(w.lessons, 2)].addProduct(w.alpha, w.n)
	}
}

// sums are Σ α · N of each group, in 10^−6 · 2^−65.
type sums [activity.Groups]*big.Int

func (p *Profile) sum(t *decayingSums, at time.Time) sums {
	var s sums
	for g := range t {
		s[g] = t[g].total(at, time.Duration(p.HalfLife))
	}
	return s
}

func (p *Profile) sums(h *history) sums {
	var t decayingSums
	for _, w := range h.weighted {
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// afterPass is the sums if the module were passed at τ. A pass halves the weight of earlier events that it teaches.
func (p *Profile) afterPass(h *history, module string, teaches []activity.Verb) sums {
	var t decayingSums
	for _, w := range h.weighted {
		if w.event.At.Before(h.at) {
			switch {
			case w.event.Verb == activity.TrainingStale, w.event.Verb == activity.OverdueModule && w.event.Module == module:
				continue
			case !w.state() && slices.Contains(teaches, w.event.Verb) &&
				!h.teaches[w.event.Verb][module].After(w.event.At):
				w.lessons++
			}
		}
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// afterClosing is the sums if the ticket were closed at τ.
func (p *Profile) afterClosing(h *history, ticket string) sums {
	var t decayingSums
	for _, w := range h.weighted {
		if w.event.Verb == activity.OverdueSecurityTicket && w.event.Ticket == ticket && w.event.At.Before(h.at) {
			continue
		}
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// Fixed-point constants: full is a risk of 1 of one source, whole is 1 in millionths.
var (
	full  = new(big.Int).Lsh(big.NewInt(1e6), 65)
	whole = big.NewInt(1e6)
)

// ratio is num/den as a Score, rounded half up; it may be above One.
func ratio(num, den *big.Int) Score {
	n := new(big.Int).Mul(num, big.NewInt(2*int64(One)))
	n.Add(n, den)
	n.Quo(n, new(big.Int).Lsh(den, 1))
	return Score(n.Int64())
}

// parts are the exact steps from the sums to a score.
type parts struct {
	sums    [activity.Groups]*big.Int // Σ_s
	factor  [activity.Groups]*big.Int // w_s · min(Σ_s, full)
	total   *big.Int                  // Σ factor: B in 10^−12 · 2^−65
	plain   Score                     // B
	raised  Score                     // max(C · B, floor + slope · B), may be above One
	score   Score                     // min(1, raised)
	sources Sources
}

func (p *Profile) combine(role Role, s sums, f finding) parts {
	weights := p.weights(role)
	r := parts{total: new(big.Int)}
	var source [activity.Groups]Score
	for g := range activity.Groups {
		r.sums[g] = s[g]
		capped := r.sums[g]
		if capped.Cmp(full) > 0 {
			capped = full
		}
		source[g] = ratio(capped, full)
		r.factor[g] = new(big.Int).Mul(big.NewInt(int64(weights.of(g))), capped)
		r.total.Add(r.total, r.factor[g])
	}
	r.sources = Sources{
		Git:      source[activity.Code],
		IAM:      source[activity.Access],
		SIEM:     source[activity.Alerts],
		Training: source[activity.Learning],
	}
	den := new(big.Int).Mul(full, whole)
	r.plain = ratio(r.total, den)
	raised := new(big.Int).Mul(r.total, big.NewInt(int64(f.multiplier)))
	if f.floor > 0 {
		floor := new(big.Int).Mul(den, big.NewInt(int64(f.floor)))
		floor.Add(floor, new(big.Int).Mul(r.total, big.NewInt(int64(p.Patterns.Slope))))
		if floor.Cmp(raised) > 0 {
			raised = floor
		}
	}
	r.raised = ratio(raised, den.Mul(den, whole))
	r.score = min(One, r.raised)
	return r
}
