package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
)

// unpack returns every file of a bundle.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "lab-bundle/")] = string(b)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func written(t *testing.T, s Source) map[string]string {
	t.Helper()
	var out bytes.Buffer
	s.Now = time.Unix(1, 0)
	if err := Write(t.Context(), &out, s); err != nil {
		t.Fatal(err)
	}
	return unpack(t, out.Bytes())
}

type fakeRuntime struct {
	files   map[string][]byte
	secrets []string
}

func (f fakeRuntime) Explain(context.Context, control.StateDir) (map[string][]byte, []string, error) {
	return f.files, f.secrets, errors.New("no more than that")
}

// A log may hold any of these secrets by mistake. None may be in a bundle, in any file or spelling.
func TestNoSecretOfTheLabIsInABundle(t *testing.T) {
	f := control.StateDir(t.TempDir())
	const (
		canary   = "AIzaSyCANARY-unit-0123456789abcdefghijk"
		odd      = "correct horse/battery+staple"
		hook     = "0c4c5c8ad1f4a3b2e1d0c9b8a7f6e5d4c3b2a1f0e9d8c7b6"
		signIn   = "Zk3wQ9xVbN7tL2mPqRs8"
		pemLine  = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRk5PVEFLRVlOT1RB"
		inPod    = "pod-secret-of-the-cluster"
		fromEnv  = "a key of the caller's environment"
		raw      = "\x01\x02binary key of 32 bytes......\x03"
		password = "Wm2pTq8vNc4xLr6z"
	)
	pem := "-----BEGIN PRIVATE KEY-----\n" + pemLine + "\n-----END PRIVATE KEY-----\n"
	put(t, f.Keys("gateway").Path("gemini.key"), odd+"\n")
	put(t, f.Keys("git").Path("source.secret"), hook+"\n")
	put(t, f.Path("people-ca.pem"), pem)
	put(t, f.Path("audit.key"), raw)
	put(t, f.Path("pg", "data", "server.key"), "not read: a file of the database's own")
	spelled := []string{canary, hook, signIn, pemLine, inPod, fromEnv, password}
	for _, s := range []string{odd, raw} {
		b := []byte(s)
		spelled = append(
			spelled,
			s,
			url.QueryEscape(s),
			hex.EncodeToString(b),
			base64.StdEncoding.EncodeToString(b),
			base64.RawURLEncoding.EncodeToString(b),
		)
	}
	everything := strings.Join(
		spelled[:2],
		" ",
	) + "\n" + strings.Join(
		spelled[3:6],
		"\n",
	) + "\n" + strings.Join(
		spelled[7:],
		"\n",
	) + "\n" + pem +
		"GET /sign-in?token=" + signIn + " 200\n" + `{"password":"` + password + `"}` + "\n" + "this line stays\n"
	put(t, f.Path("lab.json"), `{"values":{"apiKey":"`+password+`"}}`+everything)
	put(t, f.Log(), everything)
	put(t, f.WorkloadLog("gateway"), everything)
	put(t, f.WorkloadAudit("git"), everything)
	put(t, f.Path("supervisor.audit"), everything)
	put(t, f.Path("checkpoints.jsonl"), everything)
	put(t, f.Topology(), everything)
	files := written(t, Source{
		Folder: f, Version: "v1 " + canary, Why: errors.New(everything), Doctor: []string{canary}, Secrets: []string{fromEnv},
		Status:  func(context.Context) (lab.Status, error) { return lab.Status{Name: canary}, nil },
		Runtime: fakeRuntime{map[string][]byte{"kubernetes/pods.yaml": []byte(everything)}, []string{inPod}},
	})
	want := []string{
		"lab.json", "logs/supervisor.log", "logs/gateway.log", "audit/git.jsonl", "audit/supervisor.jsonl",
		"checkpoints.jsonl", "topology.yaml", "version.txt", "why.txt",
		"doctor.json", "status.json", "kubernetes/pods.yaml", "missing.txt",
	}
	for _, name := range want {
		if files[name] == "" {
			t.Errorf("%s is not in the bundle", name)
		}
	}
	if len(files) != len(want) {
		t.Errorf("the bundle has %v, want %v", sorted(files), want)
	}
	for name, text := range files {
		for _, s := range spelled {
			if strings.Contains(text, s) {
				t.Errorf("%s holds %q", name, s)
			}
		}
	}
	for _, name := range []string{"logs/gateway.log", "audit/git.jsonl", "kubernetes/pods.yaml"} {
		if !strings.Contains(files[name], "this line stays\n") {
			t.Errorf("%s has lost what is no secret:\n%s", name, files[name])
		}
	}
}

func TestABundleIsMadeOfWhateverThereIs(t *testing.T) {
	gone := func(context.Context) (lab.Status, error) {
		return lab.Status{}, errors.New("its supervisor is not running")
	}
	f := control.StateDir(t.TempDir())
	put(t, f.Log(), "the last words\n")
	for name, c := range map[string]struct {
		s    Source
		want map[string]string
	}{
		"no lab at all": {Source{
			Version: "v1", Why: errors.New("no server"),
		}, map[string]string{"version.txt": "v1", "why.txt": "no server"}},
		"a dead supervisor": {
			Source{Version: "v1", Folder: f, Status: gone},
			map[string]string{"logs/supervisor.log": "the last words", "missing.txt": "its supervisor is not running"},
		},
		"a folder that went": {
			Source{Version: "v1", Folder: control.StateDir(filepath.Join(string(f), "none"))},
			map[string]string{"version.txt": "v1"},
		},
	} {
		files := written(t, c.s)
		for file, want := range c.want {
			if !strings.Contains(files[file], want) {
				t.Errorf("%s: %s is %q, want %q", name, file, files[file], want)
			}
		}
	}
}

func TestOfWhatGrowsABundleHasTheEnd(t *testing.T) {
	f := control.StateDir(t.TempDir())
	var chain, log strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&chain, "entry %d\n", i)
	}
	for i := 0; log.Len() < logBytes+1000; i++ {
		fmt.Fprintf(&log, "line %d of a long log\n", i)
	}
	put(t, f.Path("supervisor.audit"), chain.String())
	put(t, f.Log(), log.String())
	files := written(t, Source{Folder: f})
	lines := strings.SplitAfter(files["audit/supervisor.jsonl"], "\n")
	if len(lines) != auditLines+1 || lines[0] != "entry 800\n" || lines[auditLines-1] != "entry 999\n" {
		t.Errorf("of 1000 entries there are %d, from %q", len(lines)-1, lines[0])
	}
	if got := files["logs/supervisor.log"]; len(got) > logBytes || len(got) < logBytes-100 ||
		!strings.HasPrefix(got, "line ") ||
		!strings.HasSuffix(log.String(), got) {
		t.Errorf("of the log there are %d bytes, from %.20q", len(got), got)
	}
}

// TestKeysOfSPIREAreHidden: a local SPIRE keeps its private keys in JSON files, as base64.
func TestKeysOfSPIREAreHidden(t *testing.T) {
	f := control.StateDir(t.TempDir())
	var keys []string
	for _, path := range [][]string{{"spire", "server", "keys.json"}, {"spire", "agent", "keys.json"}} {
		key := base64.StdEncoding.EncodeToString([]byte("MHcCAQEEI private of " + path[1] + " \x00\x17\xff, no one else's"))
		put(t, f.Path(path...), `{"keys":{"x509-CA-A":"`+key+`"}}`)
		keys = append(keys, key)
	}
	put(t, f.WorkloadLog("spire-server"), "loaded "+keys[0]+"\n")
	put(t, f.WorkloadLog("spire-agent"), "loaded "+keys[1]+"\n")
	files := written(t, Source{Folder: f})
	for i, name := range []string{"logs/spire-server.log", "logs/spire-agent.log"} {
		if text := files[name]; !strings.HasPrefix(text, "loaded ") || strings.Contains(text, keys[i]) {
			t.Errorf("%s is %q", name, text)
		}
	}
}

func TestEveryFileThatHoldsASecretIsKnownByItsName(t *testing.T) {
	for name, want := range map[string]bool{
		"gemini.key": true, "source.secret": true, "ca.pem": true, "people-ca.pem": true, "audit.key": true,
		"server.key": true, "keys.json": true, "kubeconfig": true, "token": true,
		"log": false, "audit": false, "lab.json": false, "topology.yaml": false, "checkpoints.jsonl": false,
		"agent-data.json": false, "hotkeys.json": false,
	} {
		if keeps.MatchString(name) != want {
			t.Errorf("that %s holds a secret is %v", name, !want)
		}
	}
}

// If a workload replaces its files by links, pipes and huge holes, no foreign file is packed, and the bundle is made.
func TestWhatAWorkloadPutInItsFilesPlacesIsNotPacked(t *testing.T) {
	f, elsewhere := control.StateDir(t.TempDir()), filepath.Join(t.TempDir(), "shadow")
	put(t, elsewhere, "root's own words\n")
	put(t, f.Log(), "the supervisor's\n")
	own := f.Of("gateway")
	put(t, own.Path("state", "deep"), "")
	huge := func(path string) error {
		h, err := os.Create(path)
		if err == nil {
			err = errors.Join(h.Truncate(1<<42), h.Close())
		}
		return err
	}
	for _, err := range []error{
		os.Symlink(
			elsewhere, f.WorkloadAudit("gateway"),
		), os.Symlink(elsewhere, own.Path("log")), syscall.Mkfifo(own.Path("state", "a.key"), 0o600),
		os.Symlink(
			elsewhere, own.Path("b.key"),
		), huge(own.Path("c.key")), os.MkdirAll(string(f.Of("git")), 0o700), syscall.Mkfifo(f.WorkloadAudit("git"), 0o600),
		os.MkdirAll(string(f.Of("jira")), 0o700), huge(f.WorkloadAudit("jira")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range mostForeign {
		put(t, own.Path("many", fmt.Sprintf("%d.key", i)), "x")
	}
	files := written(t, Source{Folder: f})
	if files["logs/supervisor.log"] == "" {
		t.Errorf("the bundle has %v", sorted(files))
	}
	for name, text := range files {
		if strings.Contains(text, "root's own words") {
			t.Errorf("%s holds another's words", name)
		}
	}
	for _, want := range []string{
		"audit/gateway.jsonl", "audit/git.jsonl", "audit/jira.jsonl", "not a regular file", "were not searched for secrets",
	} {
		if !strings.Contains(files["missing.txt"], want) {
			t.Errorf("missing.txt does not tell of %q:\n%s", want, files["missing.txt"])
		}
	}
}

// Every secret found in a workload's files is searched for in the whole bundle. The workload must not decide how much
// work that is.
func TestAWorkloadDoesNotChooseHowLongABundleTakes(t *testing.T) {
	f := control.StateDir(t.TempDir())
	for i := range 100 {
		var words strings.Builder
		for j := range 100 {
			fmt.Fprintf(&words, "Word%020dX%08d\n", i, j)
		}
		put(t, f.Of("gateway").Path("state", fmt.Sprintf("%d.key", i)), words.String())
	}
	whole, words, unread, err := secretsIn(f)
	if err != nil || unread == nil {
		t.Errorf("what was not searched is not told: %v, %v", unread, err)
	}
	if len(whole) == 0 || len(whole) > 50 || len(words) > 1000 {
		t.Errorf("%d secrets with %d words are looked for", len(whole), len(words))
	}
}
