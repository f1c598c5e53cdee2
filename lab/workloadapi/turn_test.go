package workloadapi

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/mesh/authority"
)

var domain = spiffeid.RequireTrustDomainFromString("example.org")

// disk stores what an issuer saves, unless it is full.
type disk struct {
	mu   sync.Mutex
	cas  []*authority.CA
	full bool
}

func (d *disk) save(cas []*authority.CA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("no space left on device")
	}
	d.cas = slices.Clone(cas)
	return nil
}

func (d *disk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func (d *disk) read() []*authority.CA {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.cas)
}

// turning makes an issuer that rotates its CA until stop is called, and waits there for its end.
func turning(t *testing.T, d *disk) (issuer *Issuer, stop func()) {
	t.Helper()
	issuer, err := New(domain, d.read(), d.save)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); issuer.turnCA(ctx) }()
	return issuer, func() { cancel(); <-done }
}

// TestEveryIdentityIsGoodWithWhatEverybodyHasHeardWhileTheCATurns follows a CA with a lifetime of an hour through four
// rotations. At every moment it verifies each valid identity with the current bundle and with the one of 40 s before.
// It restarts the issuer between a preparation and its activation, right after an activation, and while three CAs are
// trusted.
func TestEveryIdentityIsGoodWithWhatEverybodyHasHeardWhileTheCATurns(t *testing.T) {
	const (
		caTTL, ttl = time.Hour, 5 * time.Minute
		step, late = 20 * time.Second, 40 * time.Second
		turns      = 4
	)
	synctest.Test(t, func(t *testing.T) {
		first, err := authority.New(domain, time.Now(), caTTL)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{cas: []*authority.CA{first}}
		issuer, stop := turning(t, d)
		issuer.SetTTL(0, caTTL)
		lms := spiffeid.RequireFromPath(domain, "/lms")
		inForce := map[time.Time]*x509svid.SVID{} // by its end
		type heard struct {
			at     time.Time
			bundle []*x509.Certificate
		}
		var bundles []heard
		began, active, turned := time.Now(), first.Cert, 0
		restarts := map[string]bool{}
		restart := func(when string, due bool) {
			if restarts[when] || !due {
				return
			}
			restarts[when] = true
			stop()
			<-time.After(5 * time.Second)
			issuer, stop = turning(t, d)
			issuer.SetTTL(0, caTTL)
		}
		for ; turned < turns; <-time.After(step) {
			now := time.Now()
			if now.Sub(began) > turns*caTTL {
				t.Fatalf("after %s the CA has turned %d times, want %d", now.Sub(began), turned, turns)
			}
			svid, authorities, err := issuer.Mint(lms, now, ttl)
			if err != nil {
				t.Fatal(err)
			}
			inForce[svid.Certificates[0].NotAfter] = svid
			bundles = append(bundles, heard{now, authorities})
			for len(bundles) > 1 && now.Sub(bundles[1].at) >= late {
				bundles = bundles[1:]
			}
			for _, b := range [][]*x509.Certificate{bundles[0].bundle, authorities} {
				roots := x509.NewCertPool()
				for _, c := range b {
					roots.AddCert(c)
				}
				for end, svid := range inForce {
					if now.After(end) {
						delete(inForce, end)
						continue
					}
					if _, err := svid.Certificates[0].Verify(
						x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}},
					); err != nil {
						t.Fatalf("%s after the beginning, an identity that ends in %s: %v", now.Sub(began), end.Sub(now), err)
					}
				}
			}
			if !authorities[0].Equal(active) {
				active, turned = authorities[0], turned+1
				restart("after an activation", turned == 2)
			}
			if len(authorities) > 4 {
				t.Errorf("%d CAs are trusted, want that those before leave as they end", len(authorities))
			}
			saved := d.read()
			prepared := saved[len(saved)-1].Cert.NotBefore.After(active.NotBefore)
			restart("between preparation and activation", turned == 0 && prepared)
			restart("with three CAs", turned == 2 && prepared && len(authorities) == 3)
		}
		stop()
		if len(restarts) != 3 {
			t.Errorf("restarted %v, want three times", restarts)
		}
	})
}

func TestATurnoverThatWasPreparedGoesOnAfterARestartHoweverLate(t *testing.T) {
	for _, left := range []time.Duration{20 * time.Hour, 10 * time.Hour, 30 * time.Second, -time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{}
			issuer, err := New(domain, nil, d.save)
			if err != nil {
				t.Fatal(err)
			}
			old := issuer.Authorities()[0]
			issuer.SetTTL(0, 4*DefaultCATTL) // so that the next rotation is far away
			if err := issuer.PrepareCA(); err != nil {
				t.Fatal(err)
			}
			next := issuer.Authorities()[1]
			<-time.After(time.Until(old.NotAfter) - left)
			issuer, stop := turning(t, d)
			defer stop()
			if due := left < DefaultCATTL/2; due {
				<-time.After(longestSettling + 2*time.Second)
			} else {
				<-time.After(left - DefaultCATTL/2 - time.Minute)
				if got := issuer.Authorities()[0]; !got.Equal(old) {
					t.Error("the prepared CA signs too early")
				}
				<-time.After(time.Minute + 10*time.Second)
			}
			if got := issuer.Authorities()[0]; !got.Equal(next) {
				t.Errorf("restarted %s before the end: the prepared CA does not sign", left)
			}
		})
	}
}

func TestATurnoverThatCannotBeSavedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, err := authority.New(domain, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{cas: []*authority.CA{first}}
		issuer, stop := turning(t, d)
		defer stop()
		d.fill(true)
		<-time.After(25 * time.Minute)
		if n := len(issuer.Authorities()); n != 1 || len(d.read()) != 1 {
			t.Errorf("%d CAs are trusted of which %d are saved, want one", n, len(d.read()))
		}
		d.fill(false)
		<-time.After(2 * time.Second)
		if n := len(issuer.Authorities()); n != 2 || len(d.read()) != 2 {
			t.Errorf("%d CAs are trusted of which %d are saved, want two once there is room", n, len(d.read()))
		}
	})
}

func TestPreparedCAThatEndsBeforeItsTurnIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, stop := turning(t, &disk{})
		defer stop()
		issuer.SetTTL(0, time.Minute)
		if err := issuer.PrepareCA(); err != nil {
			t.Fatal(err)
		}
		issuer.SetTTL(0, DefaultCATTL)
		<-time.After(2 * time.Minute)
		if err := issuer.ActivateCA(); err == nil || len(issuer.Authorities()) != 1 {
			t.Errorf("a CA that has ended: %v, %d are trusted; want that none is prepared", err, len(issuer.Authorities()))
		}
		<-time.After(13 * time.Hour)
		if got := issuer.Authorities(); len(got) != 2 || time.Until(got[0].NotAfter) < 12*time.Hour {
			t.Errorf(
				"%d CAs are trusted, and the active one ends in %s; want a turnover as ever",
				len(got),
				time.Until(got[0].NotAfter),
			)
		}
	})
}
