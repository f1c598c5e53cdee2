package local

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.org/security-training/lab/control"
	"example.org/security-training/lab/spire"
	"example.org/security-training/lab/workloadapi"
	"example.org/security-training/services/env"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/topology"
)

// The names of SPIRE's processes, which are no rows of the topology.
const (
	spireServer = "spire-server"
	spireAgent  = "spire-agent"
)

// The issuers of identities.
const (
	identityAuto     = "auto"
	identityEmbedded = "embedded"
	identitySPIRE    = "spire"
)

// findSPIRE looks for spire-server and spire-agent in LAB_SPIRE_DIR and then on PATH.
func findSPIRE(lookup env.Lookup) (string, error) {
	path, _ := lookup("PATH")
	dirs := filepath.SplitList(path)
	if dir, ok := lookup("LAB_SPIRE_DIR"); ok && dir != "" {
		dirs = []string{dir}
	}
	for _, dir := range dirs {
		if executable(filepath.Join(dir, spireServer)) && executable(filepath.Join(dir, spireAgent)) {
			return filepath.Abs(dir)
		}
	}
	if dir, ok := lookup("LAB_SPIRE_DIR"); ok && dir != "" {
		return "", fmt.Errorf("no spire-server and spire-agent in LAB_SPIRE_DIR=%s", dir)
	}
	return "", errors.New("no spire-server and spire-agent on PATH, and LAB_SPIRE_DIR is not set")
}

// spireProcesses is SPIRE as an issuer: a server and an agent as processes of the lab. The agent attests a workload by
// its uid and by the path of its program, which differs for each row.
type spireProcesses struct {
	*spire.Server
	s      *Supervisor
	folder control.StateDir
}

func newSPIRE(s *Supervisor) (*spireProcesses, error) {
	x := &spireProcesses{s: s, folder: control.StateDir(s.folder.Path("spire"))}
	database, err := databaseAccount()
	if err != nil {
		return nil, err
	}
	entries := registrar.Entries(s.topo, x.nodeAlias(), func(w topology.Workload) []*types.Selector {
		i := slices.IndexFunc(s.topo.Workloads, func(o topology.Workload) bool { return o.Name == w.Name })
		return []*types.Selector{
			{Type: "unix", Value: "path:" + s.folder.binary(w.Name)},
			{Type: "unix", Value: fmt.Sprintf("uid:%d", s.account(i, w, database).uid)},
		}
	})
	// The socket's folder is private, so only the lab's owner can open the socket.
	conn, err := grpc.NewClient("unix://"+x.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("start SPIRE: %w", err)
	}
	x.Server = &spire.Server{Conn: conn, Topo: s.topo, Entries: entries}
	return x, nil
}

func (*spireProcesses) name() string { return identitySPIRE }

func (x *spireProcesses) socket() string { return x.folder.Path("server.sock") }

// nodeAlias is the parent of all entries. It stays the same whichever join token the agent used.
func (x *spireProcesses) nodeAlias() *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: x.s.topo.TrustDomain, Path: "/lab-node"}
}

func (x *spireProcesses) serve(ctx context.Context, s *Supervisor, _ chan<- error) error {
	for _, dir := range []string{string(x.folder), x.folder.Path("server"), x.folder.Path("agent")} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("start SPIRE: %w", err)
		}
	}
	if err := control.Replace(x.folder.Path("server.conf"), []byte(x.serverConfig()), 0o600); err != nil {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	x.keep(spireServer, "server.conf")
	bundle, err := x.AwaitBundle(ctx)
	if err != nil {
		return fmt.Errorf("start SPIRE: wait for the server: %w", err)
	}
	if err := control.Replace(x.folder.Path("bundle.pem"), pemOf(bundle), 0o600); err != nil {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	token, err := agentv1.NewAgentClient(x.Conn).
		CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600, AgentId: x.nodeAlias()})
	if err != nil {
		return fmt.Errorf("start SPIRE: join token: %w", err)
	}
	if err := control.Replace(x.folder.Path("token"), []byte(token.Value), 0o600); err != nil {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	if err := x.Register(ctx); err != nil {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	if err := control.Replace(x.folder.Path("agent.conf"), []byte(x.agentConfig()), 0o600); err != nil {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	if err := os.Remove(s.folder.api()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start SPIRE: %w", err)
	}
	x.keep(spireAgent, "agent.conf")
	for {
		c, err := net.Dial("unix", s.folder.api())
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start SPIRE: wait for the agent: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (x *spireProcesses) keep(program, config string) {
	x.s.keep(&process{
		name: program, path: filepath.Join(
			x.s.settings.SPIRE, program,
		), args: []string{"run", "-config", x.folder.Path(config)},
		who: account{
			uid: os.Geteuid(),
			gid: os.Getegid(),
		}, log: x.s.folder.WorkloadLog(program), end: syscall.SIGTERM, death: syscall.SIGKILL,
	})
}

func (x *spireProcesses) serverConfig() string {
	return fmt.Sprintf(`server {
  bind_address = %q
  bind_port = "%d"
  socket_path = %q
  trust_domain = %q
  data_dir = %q
  log_level = "INFO"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  experimental { cache_reload_interval = "1s" }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = %q } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { keys_path = %q } }
}
`, x.s.settings.Host, x.s.settings.SPIREPort, x.socket(), x.s.topo.TrustDomain,
		x.folder.Path("server"), x.folder.Path("server", "store.sqlite3"), x.folder.Path("server", "keys.json"))
}

func (x *spireProcesses) agentConfig() string {
	return fmt.Sprintf(`agent {
  data_dir = %q
  log_level = "INFO"
  server_address = %q
  server_port = "%d"
  socket_path = %q
  trust_bundle_path = %q
  trust_domain = %q
  join_token_file = %q
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = %q } }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`, x.folder.Path("agent"), x.s.settings.Host, x.s.settings.SPIREPort, x.s.folder.api(), x.folder.Path("bundle.pem"),
		x.s.topo.TrustDomain, x.folder.Path("token"), x.folder.Path("agent"))
}

func pemOf(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// Start implements issuer. There is nothing to prepare: the agent attests by path and uid.
func (*spireProcesses) Start(_ string, start func() (int, error)) error {
	_, err := start()
	return err
}

// Ended implements issuer.
func (*spireProcesses) Ended(int) {}

func (x *spireProcesses) order(ctx context.Context, o control.Order) error { return x.Order(ctx, o) }

// Issued implements issuer.
func (x *spireProcesses) Issued() map[string]workloadapi.Issued {
	return x.Server.Issued(x.s.folder.StateDir)
}

// spireVersion asks a program for its version, for doctor.
func spireVersion(ctx context.Context, dir string) string {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, spireServer), "--version").CombinedOutput()
	if err != nil {
		return dir
	}
	return strings.TrimSpace(string(out)) + " in " + dir
}
