package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/conductor"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// Backend is what a runtime's supervisor can do with the workloads of a lab.
type Backend interface {
	// Status returns the state of the lab and of each workload, without waiting.
	Status() lab.Status
	// Changed returns a channel that is closed when Status may have changed.
	Changed() <-chan struct{}
	// Restart ends a workload and starts it again at once.
	Restart(ctx context.Context, workload string) error
	// Mint signs an SVID for any ID of the trust domain, valid from at for ttl. It also returns the domain's
	// authorities.
	Mint(ctx context.Context, id spiffeid.ID, at time.Time, ttl time.Duration) (*x509svid.SVID, []*x509.Certificate, error)
	// Order carries out an operator's order to the issuer.
	Order(ctx context.Context, o Order) error
}

// Server is the supervisor's side of a lab. It answers on the admin socket, signs checkpoints and runs the conductor.
type Server struct {
	Folder StateDir
	Topo   *topology.Topology
	Log    *slog.Logger

	backend Backend
	audit   *audit.Log
	notary  *audit.Notary
	people  *peopleCA
	end     context.CancelFunc

	server *http.Server       // nil before Serve
	unsign context.CancelFunc // ends the signing of checkpoints
}

// Open reads the lab's folder, and makes the keys and chains that it does not have yet.
func Open(f StateDir, log *slog.Logger) (*Server, error) {
	s := &Server{Folder: f, Log: log}
	var err error
	if err := f.keepShipped(); err != nil {
		return nil, fmt.Errorf("keep the policy that the lab was made with: %w", err)
	}
	if s.Topo, err = lab.PolicyInForce(f); err != nil {
		return nil, err
	}
	key, err := loadKey(f)
	if err != nil {
		return nil, err
	}
	if s.notary, err = audit.OpenNotary(f.checkpoints(), key); err != nil {
		return nil, err
	}
	if s.people, err = openPeopleCA(f); err != nil {
		return nil, err
	}
	if s.audit, err = audit.Open(f.audit(), supervisorChain); err != nil {
		return nil, err
	}
	return s, nil
}

// supervisorChain is the name of the supervisor's own chain.
const supervisorChain = "supervisor"

// Audit is the supervisor's own chain.
func (s *Server) Audit() *audit.Log { return s.audit }

// farewell is how long Close waits for requests that are being answered.
const farewell = 3 * time.Second

// Close ends everything that Serve began, and closes the supervisor's chain. It lets requests that are being answered
// finish, one of which may be the order to end.
func (s *Server) Close() error {
	var err error
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		err = s.server.Shutdown(ctx)
		s.unsign()
	}
	return errors.Join(err, s.audit.Close())
}

// Serve opens the admin socket and returns. From then on until Close the socket answers for backend, and checkpoints
// are signed. An order to end the lab calls end. Later errors are sent to failed.
func (s *Server) Serve(backend Backend, end context.CancelFunc, failed chan<- error) error {
	s.backend, s.end = backend, end
	l, err := s.listenAdmin()
	if err != nil {
		return err
	}
	ctx, unsign := context.WithCancel(context.Background())
	s.server, s.unsign = &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second}, unsign
	go func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve admin socket: %w", err)
		}
	}()
	go s.sign(ctx)
	return nil
}

// Conduct runs the conductor until ctx ends.
func (s *Server) Conduct(ctx context.Context, host string) {
	shipped, err := os.ReadFile(s.Folder.Shipped())
	if err != nil {
		s.Log.Error("conduct the lab", "error", err.Error())
		return
	}
	conductor.Run(ctx, newLab(s.Folder, s.Topo, host, nil), shipped, s.Log)
}

func loadKey(f StateDir) (ed25519.PrivateKey, error) {
	seed, err := os.ReadFile(f.auditKey())
	if errors.Is(err, os.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, err
		}
		err = Replace(f.auditKey(), seed, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("read audit key: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read audit key %s: %d bytes, want %d", f.auditKey(), len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return key, Replace(f.auditPublic(), key.Public().(ed25519.PublicKey), 0o644)
}
