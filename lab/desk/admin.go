package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
)

// The admin socket is the supervisor's only door: a unix socket that only the lab's owner may open.

// mintRequest asks for an SVID.
type mintRequest struct {
	ID   string        `json:"id"`
	From time.Duration `json:"from"` // when its life begins, relative to now
	TTL  time.Duration `json:"ttl"`
}

// minted is an SVID with its key, and the authorities of its domain, in PEM.
type minted struct {
	Certs  []byte `json:"certs"`
	Key    []byte `json:"key"`
	Bundle []byte `json:"bundle"`
}

// Order tells the issuer to do something; exactly one field is set.
type Order struct {
	TTL      time.Duration `json:"ttl,omitempty"`
	CATTL    time.Duration `json:"ca_ttl,omitempty"`
	Rotate   string        `json:"rotate,omitempty"` // AllSVIDs, CAPrepare, CAActivate or CARetire
	One      string        `json:"one,omitempty"`    // a new SVID for one workload
	Withdraw string        `json:"withdraw,omitempty"`
	Restore  string        `json:"restore,omitempty"`
}

// What Order.Rotate may be: everybody's SVID, or a part of a CA's turn, in order.
const (
	AllSVIDs   = "svids"
	CAPrepare  = "ca-prepare"
	CAActivate = "ca-activate"
	CARetire   = "ca-retire"
)

type restartRequest struct {
	Workload string `json:"workload"`
}

func (d *Desk) listenAdmin() (net.Listener, error) {
	path := d.Folder.admin()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open admin socket: %w", err)
	}
	return l, nil
}

// routes are what the admin socket answers.
func (d *Desk) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				// The peer is the lab's owner: it may read what went wrong.
				httpjson.WriteError(w, httpjson.Errorf(http.StatusUnprocessableEntity, "refused", "%v", err))
			}
		})
	}
	handle("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) error {
		return httpjson.Write(w, http.StatusOK, d.bench.Status())
	})
	handle("GET /v1/ready", d.awaitReady)
	handle("POST /v1/mint", d.mint)
	handle("POST /v1/issuer", d.order)
	handle("POST /v1/certificate", d.certifyPerson)
	handle("POST /v1/certificate/until", d.certificatesUntil)
	handle("POST /v1/restart", func(w http.ResponseWriter, r *http.Request) error {
		var req restartRequest
		if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
			return err
		}
		if err := d.bench.Restart(r.Context(), req.Workload); err != nil {
			return err
		}
		return httpjson.Write(w, http.StatusOK, d.bench.Status())
	})
	handle("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) error {
		err := httpjson.Write(w, http.StatusAccepted, d.bench.Status())
		d.end()
		return err
	})
	return mux
}

// awaitReady answers when every workload is ready, or with the state of things when the caller's patience ends.
func (d *Desk) awaitReady(w http.ResponseWriter, r *http.Request) error {
	patience := time.NewTimer(2 * time.Second)
	defer patience.Stop()
	for {
		changed := d.bench.Changed()
		st := d.bench.Status()
		if st.Healthy {
			return httpjson.Write(w, http.StatusOK, st)
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-patience.C:
			return httpjson.Write(w, http.StatusOK, st)
		case <-changed:
		}
	}
}

func (d *Desk) mint(w http.ResponseWriter, r *http.Request) error {
	var req mintRequest
	if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
		return err
	}
	id, err := spiffeid.FromString(req.ID)
	if err != nil {
		return err
	}
	svid, authorities, err := d.bench.Mint(r.Context(), id, time.Now().Add(req.From), req.TTL)
	if err != nil {
		return err
	}
	d.audit.Write(audit.Entry{Kind: "mint", Peer: req.ID, Serial: fmt.Sprintf("%x", svid.Certificates[0].SerialNumber)})
	certs, key, err := svid.Marshal()
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, c := range authorities {
		if err := pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	return httpjson.Write(w, http.StatusOK, minted{Certs: certs, Key: key, Bundle: bundle.Bytes()})
}

func (d *Desk) order(w http.ResponseWriter, r *http.Request) error {
	var o Order
	if err := httpjson.Read(w, r, 1<<16, &o); err != nil {
		return err
	}
	for _, name := range []string{o.One, o.Withdraw, o.Restore} {
		if _, ok := d.Topo.Workload(name); name != "" && !ok {
			return fmt.Errorf("topology does not list %q", name)
		}
	}
	d.audit.Write(audit.Entry{Kind: "issuer", Detail: fmt.Sprintf("%+v", o)})
	if err := d.bench.Order(r.Context(), o); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, struct{}{})
}

// admin is the other end of the socket.
type admin struct {
	http *http.Client
	path string
}

func newAdmin(path string) *admin {
	return &admin{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// patience is how long an answer of the supervisor may take: a CA's turn is the longest of its acts. Its state it only has to look
// up: that is there at once, or the supervisor has been stopped.
func patience(route string) time.Duration {
	if route == "/v1/status" {
		return 15 * time.Second
	}
	return 5 * time.Minute
}

// call sends in, if it is not nil, and reads the answer into out, if that is not nil.
func (a *admin) call(ctx context.Context, method, route string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience(route), fmt.Errorf("it has not answered %s for %s: %w", route, patience(route), context.DeadlineExceeded))
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+route, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	if err := httpjson.ReadAnswer(resp, 16<<20, out); err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	return nil
}

func (a *admin) status(ctx context.Context) (lab.Status, error) {
	var st lab.Status
	return st, a.call(ctx, http.MethodGet, "/v1/status", nil, &st)
}

func (a *admin) mint(ctx context.Context, id spiffeid.ID, from, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error) {
	var m minted
	if err := a.call(ctx, http.MethodPost, "/v1/mint", mintRequest{ID: id.String(), From: from, TTL: ttl}, &m); err != nil {
		return nil, nil, err
	}
	svid, err := x509svid.Parse(m.Certs, m.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	bundle, err := x509bundle.Parse(id.TrustDomain(), m.Bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	return svid, x509bundle.NewSet(bundle), nil
}
