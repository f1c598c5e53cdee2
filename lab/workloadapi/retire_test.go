package workloadapi

import (
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/mesh/authority"
)

// RetireCA retires the old CA and keeps the one that is prepared.
func TestRetiringKeepsThePreparedCA(t *testing.T) {
	issuer, err := New(domain, nil, func([]*authority.CA) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // after the first rotation the old CA is still trusted, and the next one is prepared
		if err := issuer.PrepareCA(); err != nil {
			t.Fatal(err)
		}
		if len(issuer.Authorities()) == 2 {
			if err := issuer.ActivateCA(); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := issuer.Authorities()
	if err := issuer.RetireCA(); err != nil {
		t.Fatal(err)
	}
	after := issuer.Authorities()
	if len(before) != 3 || len(after) != 2 || !after[0].Equal(before[0]) || !after[1].Equal(before[2]) {
		t.Fatalf("of %d CAs %d are left, want the one that signs and the prepared one", len(before), len(after))
	}
	if err := issuer.ActivateCA(); err != nil || !issuer.Authorities()[0].Equal(before[2]) {
		t.Errorf("the prepared CA does not sign: %v", err)
	}
}

// If a CA could only be prepared late, because the disk was full, all workloads trust it for a minute before it signs.
func TestACAThatWasPreparedLateSignsOnlyWhenAllHaveHeardOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, err := authority.New(domain, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{cas: []*authority.CA{first}}
		issuer, stop := turning(t, d)
		defer stop()
		d.fill(true)
		<-time.After(40 * time.Minute) // ten minutes after it should have signed
		d.fill(false)
		<-time.After(2 * time.Second)
		if got := issuer.Authorities(); len(got) != 2 || !got[0].Equal(first.Cert) {
			t.Fatalf("%d CAs are trusted once there is room, want the next one, too, and the old one signing", len(got))
		}
		<-time.After(longestSettling - 5*time.Second)
		if !issuer.Authorities()[0].Equal(first.Cert) {
			t.Error("the new CA signs before all have heard of it")
		}
		<-time.After(5 * time.Second)
		if issuer.Authorities()[0].Equal(first.Cert) {
			t.Error("the new CA does not sign")
		}
	})
}
