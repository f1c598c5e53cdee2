package auditor

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
)

// filedLab is a lab that has only audit chains and checkpoints, in files.
type filedLab struct {
	lab.Lab
	dir    string
	public ed25519.PublicKey
}

func (l filedLab) Audit(_ context.Context, name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(l.dir, name))
}

func (l filedLab) Checkpoints() (lines, public []byte, err error) {
	lines, err = os.ReadFile(filepath.Join(l.dir, "checkpoints"))
	return lines, l.public, err
}

// filed makes a filedLab, and an operator that gets two business rows from every writer. Each writer recorded the
// second as the end.
func filed(t *testing.T) (filedLab, *operator.Operator, []string) {
	t.Helper()
	net := meshtest.Start(t, manifests.Topology())
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := filedLab{dir: t.TempDir(), public: public}
	notary, err := audit.OpenNotary(filepath.Join(l.dir, "checkpoints"), private)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"supervisor"}
	for _, w := range net.Topology.Workloads {
		if w.Kind != topology.KindOperator {
			names = append(names, w.Name)
		}
	}
	rows := map[string][]audit.Row{}
	for _, w := range net.Topology.Serving(audit.RouteRows) {
		first := audit.Row{Chain: w.Name, Seq: 1, Kind: "reset"}
		first.Hash = first.Sum()
		second := audit.Row{Chain: w.Name, Seq: 2, Kind: "reset", Prev: first.Hash}
		second.Hash = second.Sum()
		rows[w.Name] = []audit.Row{first, second}
		node := net.Join(t, w.Name)
		for _, route := range node.Self().Routes() {
			node.Handle(route, func(w http.ResponseWriter, _ *http.Request) error {
				return audit.WriteRows(w, audit.Each(rows[node.Self().Name]))
			})
		}
		if w.Web != 0 {
			node.HandlePeople(meshtest.NoPeople)
		}
		net.Serve(t, node)
	}
	chains := map[string]audit.Chain{}
	for _, name := range names {
		path := filepath.Join(l.dir, name)
		log, err := audit.Open(path, name)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(audit.Entry{Kind: "start"})
		if r := rows[name]; r != nil {
			log.Write(audit.Entry{Kind: audit.KindTip, Detail: "2 " + r[1].Hash})
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		chains[name] = func() (*os.File, error) { return os.Open(path) }
	}
	if unfit, err := notary.Sign(time.Now(), chains); err != nil || len(unfit) > 0 {
		t.Fatal(unfit, err)
	}
	return l, &operator.Operator{Node: net.Join(t, net.Topology.OfKind(topology.KindOperator)[0].Name)}, names
}

func TestVerificationGoesOnAfterABadChainAndNamesEach(t *testing.T) {
	l, o, names := filed(t)
	writers := o.Node.Topology().Serving(audit.RouteRows)
	chains, err := Verify(t.Context(), l, o)
	if err != nil || len(chains) != len(names)+len(writers) {
		t.Fatalf("%d chains of %d and %d: %v", len(chains), len(names), len(writers), err)
	}
	for _, c := range chains {
		if c.Entries == 0 || c.Checkpoints == 0 {
			t.Errorf("%+v", c)
		}
	}
	missing, edited := names[2], names[5]
	if err := os.Remove(filepath.Join(l.dir, missing)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(l.dir, edited))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(
		filepath.Join(l.dir, edited),
		bytes.Replace(text, []byte("start"), []byte("stars"), 1),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	chains, err = Verify(t.Context(), l, o)
	if err == nil || !strings.Contains(err.Error(), missing+": missing chain: ") ||
		!strings.Contains(err.Error(), edited+", line 1 (seq 1): edited: ") {
		t.Errorf("%v", err)
	}
	if len(chains) != len(names)+len(writers) {
		t.Errorf("%d chains were verified, want all %d", len(chains), len(names)+len(writers))
	}
	for _, c := range chains {
		// If a writer's chain of decisions is missing, nothing records the end of its business rows.
		if bad := c.Name == missing || c.Name == edited || c.Name == audit.RowsOf(missing); bad != (len(c.Faults) > 0) {
			t.Errorf("%s: %v", c.Name, c.Faults)
		}
	}
}

func TestVerificationIsNotContentWithoutCheckpoints(t *testing.T) {
	l, o, names := filed(t)
	if err := os.Truncate(filepath.Join(l.dir, "checkpoints"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(t.Context(), l, o)
	if err == nil || strings.Count(err.Error(), ": no checkpoints: ") != len(names) {
		t.Errorf("%v, want that none of the %d chains has a checkpoint", err, len(names))
	}
}

func TestTheExportHoldsEveryChain(t *testing.T) {
	l, o, names := filed(t)
	var out bytes.Buffer
	if err := Export(t.Context(), l, o, &out); err != nil {
		t.Fatal(err)
	}
	entries, points := map[string]int{}, map[string]int{}
	for d := json.NewDecoder(&out); ; {
		var line struct {
			Chain      string
			Entry, Row json.RawMessage
			Checkpoint json.RawMessage
		}
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if line.Entry != nil {
			entries[line.Chain]++
		}
		if line.Checkpoint != nil {
			points[line.Chain]++
		}
	}
	for _, name := range names {
		if entries[name] == 0 || points[name] == 0 {
			t.Errorf("%s: %d entries, %d checkpoints", name, entries[name], points[name])
		}
	}
	if !slices.Contains(names, "supervisor") || len(entries) != len(names) {
		t.Errorf("%d chains, want %d", len(entries), len(names))
	}
}
