// Package control is how a lab is controlled from the machine on which it was started, for all runtimes.
//
// Server is the supervisor's side. It answers on a socket that only the lab's owner may open. It keeps the CA for
// people's browsers and the key that signs the ends of all audit chains, and it runs the conductor. A runtime gives it
// a Backend, which starts, ends and observes workloads.
//
// Lab is the client's side, for the command line and the tests. StateDir is the private folder that both use.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// StateDir is the path of a lab's private folder, which holds everything that a lab keeps on this machine.
type StateDir string

// Path returns the path of a file or folder below f.
func (f StateDir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(f)}, elem...)...)
}

func (f StateDir) settings() string { return f.Path("lab.json") }

func (f StateDir) admin() string { return f.Path("admin.sock") }

func (f StateDir) audit() string { return f.Path("supervisor.audit") }

func (f StateDir) checkpoints() string { return f.Path("checkpoints.jsonl") }

func (f StateDir) auditKey() string { return f.Path("audit.key") }

func (f StateDir) auditPublic() string { return f.Path("audit.pub") }

// Topology is the file of the running policy, which may be edited.
func (f StateDir) Topology() string { return f.Path("topology.yaml") }

// Shipped is the file of the policy that the lab was made with. Nothing changes it.
func (f StateDir) Shipped() string { return f.Path("topology.shipped.yaml") }

// WriteTopology writes both policy files. Only the lab's owner can replace the shipped one.
func (f StateDir) WriteTopology(text []byte) error {
	if err := os.WriteFile(f.Topology(), text, 0o644); err != nil {
		return err
	}
	return Replace(f.Shipped(), text, 0o444)
}

// keepShipped writes the shipped policy of a lab that an older version made without one.
func (f StateDir) keepShipped() error {
	if _, err := os.Stat(f.Shipped()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := manifests.Topology()
	shipped, err := topology.FromYAML(text)
	if err != nil {
		return err
	}
	running, err := os.ReadFile(f.Topology())
	if err != nil {
		return err
	}
	if was, err := topology.FromYAML(running); err == nil && shipped.SameShape(was) != nil {
		text = running // it has another version's shape: take the file as it is
	}
	return Replace(f.Shipped(), text, 0o444)
}

// Log is the supervisor's log.
func (f StateDir) Log() string { return f.Path("supervisor.log") }

// Of is a workload's own folder. The workload can replace the files in it: read them with OpenUntrusted.
func (f StateDir) Of(workload string) StateDir { return StateDir(f.Path("w", workload)) }

// Logs is the folder of all logs. Workloads cannot write there: their output comes through a pipe.
func (f StateDir) Logs() string { return f.Path("logs") }

// WorkloadLog is the log of a workload, or of a process on which workloads depend. When the log becomes long, its file
// is renamed, with ".1" at the end, and a new one is begun.
func (f StateDir) WorkloadLog(w string) string { return f.Path("logs", w+".log") }

// Keys is the folder of the secrets that a workload may read. The workload cannot write there.
func (f StateDir) Keys(workload string) StateDir { return StateDir(f.Path("keys", workload)) }

// WorkloadPprof is the socket on which a workload serves Go's profiles, if the lab was made with LAB_PPROF=1.
func (f StateDir) WorkloadPprof(w string) string { return f.Of(w).Path("pprof.sock") }

// WorkloadAudit is the file of a workload's audit chain.
func (f StateDir) WorkloadAudit(w string) string { return f.Of(w).Path("audit") }

// Settings are the settings that the supervisor of every runtime needs. A runtime's own settings embed them. Up writes
// them once, when it makes the lab.
type Settings struct {
	Runtime string   `json:"runtime"` // local, kind or cluster
	Spec    lab.Spec `json:"spec"`
	Host    string   `json:"host"`    // the loopback address under which the lab is reached from this machine
	DBPort  int      `json:"db_port"` // the database's port on this machine: any that was free
	Version string   `json:"version"`

	Identity string `json:"identity"`           // the issuer of identities: embedded or spire
	Backend  string `json:"llm_backend"`        // gemini or stub
	Model    string `json:"gemini_model"`       // the name of Gemini's model
	KeyMark  string `json:"key_mark,omitempty"` // identifies the key without revealing it

	Provider Provider `json:"provider,omitzero"` // for signing in by OpenID Connect
	Pprof    bool     `json:"pprof,omitempty"`   // each workload serves Go's profiles on a socket of its own

	DevDir string `json:"lms_dev_dir,omitempty"` // from where the learning system reads its pages; "": from its program
}

// Addr is the address on this machine at which a workload's mesh listener is reached.
func (s Settings) Addr(w topology.Workload) string {
	port := w.Port
	if w.Kind == topology.KindDatabase && s.DBPort != 0 { // 0 in a lab that an older version made
		port = s.DBPort
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(port))
}

// Read reads the settings of f into s, which must be a pointer to the type that Write got. The error wraps
// fs.ErrNotExist if there is no lab.
func (f StateDir) Read(s any) error {
	b, err := os.ReadFile(f.settings())
	if err != nil {
		return fmt.Errorf("read lab: %w", err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return fmt.Errorf("read lab %s: %w", f.settings(), err)
	}
	return nil
}

// Write writes the settings. A folder is a lab from then on, so everything else must be written before.
func (f StateDir) Write(s any) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return Replace(f.settings(), append(b, '\n'), 0o600)
}

// Replace writes a file atomically: it is either the old one or the new one.
func Replace(path string, content []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// StateDirOf returns the folder of the lab called name, whether there is such a lab or not.
func StateDirOf(lookup env.Lookup, name string) (StateDir, error) {
	if !labName.MatchString(name) {
		return "", &lab.Error{
			Code: lab.ExitUsage,
			What: "name a lab",
			Why:  fmt.Errorf("%q: want a letter, then letters, digits and dashes, 24 at most", name),
		}
	}
	home, err := Home(lookup)
	if err != nil {
		return "", err
	}
	f := StateDir(filepath.Join(home, name))
	return f, f.checkOwner()
}

// Remove removes f, and the labs' folder if no other lab is in it. It returns a description of what it removed.
func (f StateDir) Remove() ([]string, error) {
	if err := os.RemoveAll(string(f)); err != nil {
		return nil, fmt.Errorf("remove %s: %w", f, err)
	}
	_ = os.Remove(filepath.Dir(string(f))) // fails while there are other labs
	return []string{"folder " + string(f)}, nil
}

// Turn waits until no other process of this user brings a lab up, or until ctx ends. The turn ends when the returned
// value is closed. It makes the labs' folder.
func (f StateDir) Turn(ctx context.Context, p progress.Reporter) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o711); err != nil {
		return nil, &lab.Error{Code: lab.ExitPrecondition, What: "make the labs' folder", Why: err, Try: OwnHome}
	}
	turn, err := lock(ctx, filepath.Dir(string(f)), func() { p.Say("another `lab up` is at work: waiting for it to end") })
	if err != nil {
		return nil, fmt.Errorf("wait for my turn: %w", err)
	}
	return turn, nil
}

// Alone waits until no other process changes what the lab of f runs, or until ctx ends. That holds until the returned
// value is closed. It does not wait for other labs.
func (f StateDir) Alone(ctx context.Context, p progress.Reporter) (io.Closer, error) {
	alone, err := lock(
		ctx,
		string(f),
		func() { p.Say("another command changes what this lab runs: waiting for it to end") },
	)
	if err != nil {
		return nil, fmt.Errorf("wait for my turn: %w", err)
	}
	return alone, nil
}

var labName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,23}$`)

// Home is the folder of this user's labs: LAB_HOME, or /var/lib/security-training for root, because workloads with
// other uids must be able to enter it, or the user's state folder. Programs in a lab's folder are executed, so Home
// refuses a folder that other users can change or could create.
func Home(lookup env.Lookup) (string, error) {
	path, err := home(lookup)
	if err != nil {
		return "", err
	}
	private, err := Private(path)
	if err != nil {
		return "", untrusted("use the labs' folder "+path, err)
	}
	return private, nil
}

func home(lookup env.Lookup) (string, error) {
	if v, ok := lookup("LAB_HOME"); ok && v != "" {
		return filepath.Abs(v)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/security-training", nil
	}
	if v, ok := lookup("XDG_STATE_HOME"); ok && v != "" {
		return filepath.Join(v, "security-training"), nil
	}
	home, ok := lookup("HOME")
	if !ok || home == "" {
		return "", untrusted("find the labs' folder", errors.New("neither LAB_HOME, XDG_STATE_HOME nor HOME is set"))
	}
	return filepath.Join(home, ".local", "state", "security-training"), nil
}

// Names returns the names of this user's labs, sorted: the folders that have a lab's settings.
func Names(lookup env.Lookup) ([]string, error) {
	home, err := Home(lookup)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the labs: %w", err)
	}
	var names []string
	for _, e := range entries {
		_, err := os.Stat(StateDir(filepath.Join(home, e.Name())).settings())
		if err == nil && labName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// LastLines returns the last n lines of a log, for an error message.
func LastLines(path string, n int) string {
	b, err := tail(path, 64<<10)
	if err != nil {
		return ""
	}
	if len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "  | " + strings.Join(lines[max(0, len(lines)-n):], "\n  | ")
}

// tail returns at most the last most bytes of a file.
func tail(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, fi.Size()-most), most))
}
