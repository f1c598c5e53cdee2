// Package control is how a lab is controlled on the machine that it was started from, for every runtime. The
// supervisor's side is Server: it answers on a socket that only its owner may open, keeps the CA for people's browsers
// and the key that signs the ends of all audit chains, and runs the conductor. Lab is the client's side, for the
// command line and the tests. StateDir is the private folder that both share.
//
// A runtime gives Server a Backend, which knows how to start, end and look at workloads.
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

// StateDir is a lab's private folder; everything that a lab keeps is below it.
type StateDir string

// Path is a file or folder below f.
func (f StateDir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(f)}, elem...)...)
}

func (f StateDir) settings() string { return f.Path("lab.json") }

func (f StateDir) admin() string { return f.Path("admin.sock") }

func (f StateDir) audit() string { return f.Path("supervisor.audit") }

func (f StateDir) checkpoints() string { return f.Path("checkpoints.jsonl") }

func (f StateDir) auditKey() string { return f.Path("audit.key") }

func (f StateDir) auditPublic() string { return f.Path("audit.pub") }

// Topology is the lab's own, which may be edited while it runs.
func (f StateDir) Topology() string { return f.Path("topology.yaml") }

// Shipped is a copy of the topology that the lab came with, which nothing changes.
func (f StateDir) Shipped() string { return f.Path("topology.shipped.yaml") }

// WriteTopology writes both: the lab's own, and the copy of it that only its owner can replace.
func (f StateDir) WriteTopology(text []byte) error {
	if err := os.WriteFile(f.Topology(), text, 0o644); err != nil {
		return err
	}
	return Replace(f.Shipped(), text, 0o444)
}

// keepShipped makes the copy in a lab that an older version made without one.
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
		text = running // of another version's shape: it is all that is known of that
	}
	return Replace(f.Shipped(), text, 0o444)
}

// Log is the supervisor's.
func (f StateDir) Log() string { return f.Path("supervisor.log") }

// Of is a workload's own folder, whose files the workload can replace: read them by OpenUntrusted.
func (f StateDir) Of(workload string) StateDir { return StateDir(f.Path("w", workload)) }

// Logs is the folder of the logs, which are written by the lab's owner alone: a workload only has a pipe.
func (f StateDir) Logs() string { return f.Path("logs") }

// WorkloadLog is the log of a workload, or of a process that workloads stand on. What was written before it stands in
// the file of the same name with ".1" at its end, once the log has been long.
func (f StateDir) WorkloadLog(w string) string { return f.Path("logs", w+".log") }

// Keys is the folder of what a workload is given to read: it belongs to the lab's owner, and the workload cannot write
// it.
func (f StateDir) Keys(workload string) StateDir { return StateDir(f.Path("keys", workload)) }

// WorkloadPprof is the socket on which a workload serves Go's profiles, in a lab that was made with LAB_PPROF=1.
func (f StateDir) WorkloadPprof(w string) string { return f.Of(w).Path("pprof.sock") }

// WorkloadAudit is a workload's chain of decisions.
func (f StateDir) WorkloadAudit(w string) string { return f.Of(w).Path("audit") }

// Settings is what every runtime's supervisor needs to know; a runtime's own settings embed it. They are written once,
// by Up.
type Settings struct {
	Runtime string   `json:"runtime"` // local, kind or cluster
	Spec    lab.Spec `json:"spec"`
	Host    string   `json:"host"`    // the loopback address under which the lab is reached from this machine
	DBPort  int      `json:"db_port"` // the database's there: any that was free
	Version string   `json:"version"`

	Identity string `json:"identity"`           // who issues it: embedded or spire
	Backend  string `json:"llm_backend"`        // gemini or stub
	Model    string `json:"gemini_model"`       // its name
	KeyMark  string `json:"key_mark,omitempty"` // tells the key from another, and nothing else of it

	Provider Provider `json:"provider,omitzero"` // of identities
	Pprof    bool     `json:"pprof,omitempty"`   // each workload serves Go's profiles on a socket of its own

	DevDir string `json:"lms_dev_dir,omitempty"` // from where the learning system reads its pages; "": those built in
}

// Addr is where a workload's mesh listener is reached from this machine.
func (s Settings) Addr(w topology.Workload) string {
	port := w.Port
	if w.Kind == topology.KindDatabase && s.DBPort != 0 { // 0 in a lab that an older version made
		port = s.DBPort
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(port))
}

// Read reads the settings of f into s, a pointer to what Write was given. The error is fs.ErrNotExist where there is no
// lab.
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

// Write writes the settings; they come last, and make f a lab.
func (f StateDir) Write(s any) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return Replace(f.settings(), append(b, '\n'), 0o600)
}

// Replace writes a file in one step.
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

// StateDirOf is where the lab called name keeps everything, whether there is one or not.
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
	return f, f.mine()
}

// Remove removes f, and the labs' folder if this was the last one. It says what it removed.
func (f StateDir) Remove() ([]string, error) {
	if err := os.RemoveAll(string(f)); err != nil {
		return nil, fmt.Errorf("remove %s: %w", f, err)
	}
	_ = os.Remove(filepath.Dir(string(f))) // which refuses while there are others
	return []string{"folder " + string(f)}, nil
}

// Turn waits for this user's turn to bring a lab up, which lasts until what it returns is closed, or until ctx ends. It
// makes the labs' folder.
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

// Alone waits until no other process changes what the lab of f runs, which lasts until what it returns is closed, or
// until ctx ends. Other labs are not waited for.
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

// Home is the folder of this user's labs: LAB_HOME, else /var/lib/security-training for root, because workloads of
// other uids must be able to enter it, else the user's state folder. What a lab's folder says is run: a folder that
// other users can change, or can put there, is refused.
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

// Names are those of this user's labs, sorted: of every folder that has a lab's settings.
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

// LastLines is the end of a log, for an error message.
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

// tail is the last most bytes of a file.
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
