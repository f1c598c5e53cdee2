package risk

import (
	"math/big"
	"math/bits"
	"time"
)

// An event's weight N is a fixed-point number; one is 1<<63. Integer sums do not depend on their order and are the same
// on every machine. float64 arithmetic is not: some machines fuse multiplication and addition.
const one = uint64(1) << 63

// halvings[i][b] is 2^−x for x = b / 256^(i+1), as a fraction of 2^64 (0 stands for the 1 of b = 0).
var halvings = tabulateHalvings()

func tabulateHalvings() *[8][256]uint64 {
	const precision = 160
	// roots[k] = 2^(−2^−(k+1)): repeated square roots of one half.
	roots := make([]*big.Float, 64)
	x := new(big.Float).SetPrec(precision).SetFloat64(0.5)
	for k := range roots {
		x = new(big.Float).SetPrec(precision).Sqrt(x)
		roots[k] = x
	}
	scale := new(big.Float).SetPrec(precision).SetMantExp(big.NewFloat(1), 64)
	half := big.NewFloat(0.5)
	var t [8][256]uint64
	for i := range t {
		for b := 1; b < 256; b++ {
			p := new(big.Float).SetPrec(precision).SetInt64(1)
			for j := range 8 {
				if b&(0x80>>j) != 0 {
					p.Mul(p, roots[8*i+j])
				}
			}
			p.Mul(p, scale).Add(p, half)
			n, _ := p.Int(nil)
			if n.BitLen() > 64 { // rounded up to 1, as the smallest exponents are
				n.SetUint64(^uint64(0))
			}
			t[i][b] = n.Uint64()
		}
	}
	return &t
}

// halve is 2^(−age/life) in units of 2^−63, exact to a few units; age must not be negative.
func halve(age, life time.Duration) uint64 {
	whole := uint64(age / life)
	if whole >= 63 {
		return 0
	}
	// life is under 2^63 ns, so the quotient of (rest · 2^64) / life fits.
	fraction, _ := bits.Div64(uint64(age%life), 0, uint64(life))
	n := one
	for i := range halvings {
		b := byte(fraction >> (56 - 8*i))
		if b != 0 {
			hi, lo := bits.Mul64(n, halvings[i][b])
			n = hi + lo>>63
		}
	}
	return n >> whole
}

// uint128 is an unsigned 128-bit sum.
type uint128 struct{ hi, lo uint64 }

// addProduct adds factor · n.
func (s *uint128) addProduct(factor, n uint64) {
	hi, lo := bits.Mul64(factor, n)
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
}

func (s uint128) big() *big.Int {
	b := new(big.Int).SetUint64(s.hi)
	return b.Lsh(b, 64).Or(b, new(big.Int).SetUint64(s.lo))
}

// decayingSum accumulates Σ α · N. A decaying weight is kept as 2^((t − 1970)/life), by whole half-lives since 1970,
// so that an event is added once, in any order, and for every later τ. Weights that do not decay are kept apart. Each
// sum is divided by the number of lessons that followed: none, one, more.
type decayingSum struct {
	ages  []age
	plain [3]uint128 // 10^−6 · 2^−63
}

// age is the events of one half-life since 1970: Σ α · 2^(fraction − 1), in 10^−6 · 2^−63.
type age struct {
	number int64
	grown  [3]uint128
}

// oldest is the number of half-lives after which an age is ignored: its weight is under 2^−120.
const oldest = 120

// since1970 splits a time into whole half-lives since 1970 and the rest.
func since1970(t time.Time, life time.Duration) (number int64, rest time.Duration) {
	const second = int64(time.Second)
	// Seconds and nanoseconds are divided separately: an int64 of nanoseconds since 1970 ends in 2262.
	whole := int64(life) / second
	number, left := t.Unix()/whole, t.Unix()%whole
	if left < 0 {
		number, left = number-1, left+whole
	}
	return number, time.Duration(left*second) + time.Duration(t.Nanosecond())
}

func (t *decayingSum) age(number int64) *age {
	for i := range t.ages {
		if t.ages[i].number == number {
			return &t.ages[i]
		}
	}
	t.ages = append(t.ages, age{number: number})
	return &t.ages[len(t.ages)-1]
}

// grow adds an event that decays with a half-life of whole seconds.
func (t *decayingSum) addDecaying(alpha uint64, at time.Time, life time.Duration, lessons int) {
	number, rest := since1970(at, life)
	t.age(number).grown[min(lessons, 2)].addProduct(alpha, halve(life-rest, life))
}

// merge adds all of another sum.
func (t *decayingSum) merge(o *decayingSum) {
	for i := range o.plain {
		t.plain[i].plus(o.plain[i])
	}
	for _, a := range o.ages {
		own := t.age(a.number)
		for i := range a.grown {
			own.grown[i].plus(a.grown[i])
		}
	}
}

// quarters is 4 · none + 2 · one + more: the sum after lessons, in quarters.
func quarters(s [3]uint128) *big.Int {
	total := s[0].big()
	total.Lsh(total, 1).Add(total, s[1].big())
	return total.Lsh(total, 1).Add(total, s[2].big())
}

// total is Σ α · N at τ, in 10^−6 · 2^−65.
func (t *decayingSum) total(at time.Time, life time.Duration) *big.Int {
	plain := quarters(t.plain)
	if len(t.ages) == 0 {
		return plain
	}
	now, rest := since1970(at, life)
	grown := new(big.Int)
	for _, a := range t.ages {
		if back := now - a.number; back >= 0 && back <= oldest {
			own := quarters(a.grown)
			grown.Add(grown, own.Lsh(own, uint(oldest-back)))
		}
	}
	grown.Mul(grown, new(big.Int).SetUint64(halve(rest, life)))
	return plain.Add(plain, grown.Rsh(grown, oldest+63-1))
}

// plus adds another sum.
func (s *uint128) plus(o uint128) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}
