package control

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
)

// The admin socket is the only way to give the supervisor orders: a unix socket that only the lab's owner may open.

// mintRequest asks for an SVID.
type mintRequest struct {
	ID   string        `json:"id"`
	From time.Duration `json:"from"` // when its validity begins, relative to now
	TTL  time.Duration `json:"ttl"`
}

// minted is an SVID with its key, and the authorities of its trust domain, in PEM.
type minted struct {
	Certs  []byte `json:"certs"`
	Key    []byte `json:"key"`
	Bundle []byte `json:"bundle"`
}

// Order tells the issuer what to do. Exactly one field is set; TTL and CATTL may be set together.
type Order struct {
	TTL      time.Duration `json:"ttl,omitempty"`
	CATTL    time.Duration `json:"ca_ttl,omitempty"`
	Rotate   string        `json:"rotate,omitempty"` // AllSVIDs, CAPrepare, CAActivate or CARetire
	One      string        `json:"one,omitempty"`    // a new SVID for one workload
	Withdraw string        `json:"withdraw,omitempty"`
	Restore  string        `json:"restore,omitempty"`
}

// The values of Order.Rotate: the SVIDs of all workloads, or one of the three steps of a CA rotation, in their order.
const (
	AllSVIDs   = "svids"
	CAPrepare  = "ca-prepare"
	CAActivate = "ca-activate"
	CARetire   = "ca-retire"
)

type restartRequest struct {
	Workload string `json:"workload"`
	Program  string `json:"program,omitempty"` // the build that it takes up; "": the program is the same
}

func (s *Server) listenAdmin() (net.Listener, error) {
	path := s.Folder.admin()
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

// routes are the routes of the admin socket.
func (s *Server) routes() http.Handler {
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
		return httpjson.Write(w, http.StatusOK, s.backend.Status())
	})
	handle("GET /v1/ready", s.awaitReady)
	handle("POST /v1/mint", s.mint)
	handle("POST /v1/issuer", s.order)
	handle("POST /v1/certificate", s.certifyPerson)
	handle("POST /v1/certificate/until", s.certificatesUntil)
	handle("POST /v1/restart", s.restart)
	handle("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) error {
		err := httpjson.Write(w, http.StatusAccepted, s.backend.Status())
		s.end()
		return err
	})
	return mux
}

// restart ends a workload; the backend starts it again. The supervisor's chain records the order.
func (s *Server) restart(w http.ResponseWriter, r *http.Request) error {
	var req restartRequest
	if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
		return err
	}
	detail := req.Workload
	if req.Program != "" {
		detail += " takes up program " + req.Program
	}
	s.audit.Write(audit.Entry{Kind: "restart", Detail: detail})
	if err := s.backend.Restart(r.Context(), req.Workload); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, s.backend.Status())
}

// awaitReady answers when the workload that the request names is ready, or all of them if it names none. After two
// seconds it answers with the state that there is then.
func (s *Server) awaitReady(w http.ResponseWriter, r *http.Request) error {
	patience := time.NewTimer(2 * time.Second)
	defer patience.Stop()
	name := r.URL.Query().Get("workload")
	for {
		changed := s.backend.Changed()
		st := s.backend.Status()
		if readyIn(st, name) {
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

func (s *Server) mint(w http.ResponseWriter, r *http.Request) error {
	var req mintRequest
	if err := httpjson.Read(w, r, 1<<16, &req); err != nil {
		return err
	}
	id, err := spiffeid.FromString(req.ID)
	if err != nil {
		return err
	}
	svid, authorities, err := s.backend.Mint(r.Context(), id, time.Now().Add(req.From), req.TTL)
	if err != nil {
		return err
	}
	s.audit.Write(audit.Entry{Kind: "mint", Peer: req.ID, Serial: fmt.Sprintf("%x", svid.Certificates[0].SerialNumber)})
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

func (s *Server) order(w http.ResponseWriter, r *http.Request) error {
	var o Order
	if err := httpjson.Read(w, r, 1<<16, &o); err != nil {
		return err
	}
	for _, name := range []string{o.One, o.Withdraw, o.Restore} {
		if _, ok := s.Topo.Workload(name); name != "" && !ok {
			return fmt.Errorf("topology does not list %q", name)
		}
	}
	s.audit.Write(audit.Entry{Kind: "issuer", Detail: fmt.Sprintf("%+v", o)})
	if err := s.backend.Order(r.Context(), o); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, struct{}{})
}
