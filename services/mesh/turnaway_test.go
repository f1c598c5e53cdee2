package mesh

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/audit"
)

func TestPeopleWhoAreTurnedAwayAgainAndAgainAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		n := lone(t, "a", domainCA(t))
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		n.audit = audit.New(d, "a")
		for range 1000 {
			n.TurnAway("192.0.2.1:80", audit.Entry{Kind: "page", Reason: "bad_link", Detail: strings.Repeat("<", 5000)})
		}
		<-time.After(time.Minute)
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		entries, err := audit.Read(strings.NewReader(d.text.String()))
		if err != nil || len(entries) != 2 || entries[1].Count != 999 || len(d.text.String()) > 2048 {
			t.Errorf("%d bytes, %d entries, %v", len(d.text.String()), len(entries), err)
		}
	})
}
