package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env/needtest"
)

// still is a backend whose status never changes and that issues nothing.
type still struct{ status lab.Status }

func (b *still) Status() lab.Status { return b.status }

func (*still) Changed() <-chan struct{} { return nil }

func (*still) Restart(context.Context, string) error { return nil }

func (*still) Order(context.Context, control.Order) error { return nil }

func (*still) Mint(
	context.Context, spiffeid.ID, time.Time, time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	return nil, nil, errors.New("the issuer is away")
}

// The exit code is 0 only if all is well; anything less is "partly up". e2e tests a lab that is well.
func TestStatusEndsWithTheCodeOfPartlyUpUnlessAllIsWell(t *testing.T) {
	home := filepath.Join(needtest.PrivateDir(t), "labs")
	t.Setenv("LAB_HOME", home)
	f := control.StateDir(filepath.Join(home, "lab"))
	err := errors.Join(os.MkdirAll(string(f), 0o700), os.WriteFile(f.Topology(), manifests.Topology(), 0o600),
		f.Write(control.Settings{Runtime: local.RuntimeName, Spec: lab.Spec{Name: "lab"}, Host: "127.0.0.248"}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := control.Open(f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := &still{}
	if err := s.Serve(b, func() {}, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		healthy, seeded bool
		says            string
	}{
		{false, true, "not every workload is ready"},
		{false, false, "not every workload is ready"},
		{true, false, "the history has not been delivered"},
		{true, true, "the issuer is away"}, // then nothing can be counted
	} {
		b.status = lab.Status{Name: "lab", Runtime: local.RuntimeName, Healthy: c.healthy, Seeded: c.seeded}
		for _, format := range []string{"text", "json", "env"} {
			var out, said bytes.Buffer
			code := runTo(t.Context(), []string{"status", "-o", format}, &out, &said)
			if code != lab.ExitPartly || !strings.Contains(said.String(), c.says) || out.Len() == 0 {
				t.Errorf("healthy %v, seeded %v, -o %s: exit code %d, want %d, %q and the status itself\n%s%s",
					c.healthy, c.seeded, format, code, lab.ExitPartly, c.says, out.String(), said.String())
			}
		}
	}
}
