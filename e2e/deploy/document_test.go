package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

var root = filepath.Join("..", "..")

func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "DEPLOYMENT_ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// printed are the commands of the document's shell blocks, each on one line and without its comment.
func printed(t *testing.T) []string {
	t.Helper()
	var out []string
	in, open := false, ""
	for line := range strings.Lines(document(t)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			in = line == "```bash"
		case !in || line == "" || strings.HasPrefix(line, "#"):
		case strings.HasSuffix(line, `\`):
			open += strings.TrimSuffix(line, `\`)
		default:
			command, _, _ := strings.Cut(open+line, " #")
			out, open = append(out, strings.TrimSpace(command)), ""
		}
	}
	if len(out) < 15 {
		t.Fatalf("the document prints %d commands: this proves nothing", len(out))
	}
	return out
}

// table are the cells of the table whose first cells are heads, row by row.
func table(t *testing.T, heads ...string) [][]string {
	t.Helper()
	var rows [][]string
	found := false
	for line := range strings.Lines(document(t)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if found && len(rows) > 1 {
				return rows[1:] // without the line below the heads
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if found {
			rows = append(rows, cells)
		} else if len(cells) >= len(heads) && slices.Equal(cells[:len(heads)], heads) {
			found = true
		}
	}
	t.Fatalf("the document has no table of %v", heads)
	return nil
}

func topo(t *testing.T) *topology.Topology {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func TestTheDocumentsTableOfWorkloadsIsTheTopology(t *testing.T) {
	want := map[string][]string{}
	for _, w := range topo(t).Workloads {
		var mesh, service string
		if w.Port != 0 {
			mesh, service = strconv.Itoa(w.Port), w.Host()
		}
		var others []string
		for _, o := range []struct {
			port int
			what string
		}{{w.Web, "web"}, {w.WebTLS, "web TLS"}, {w.Health, "health"}} {
			if o.port != 0 {
				others = append(others, strconv.Itoa(o.port)+" "+o.what)
			}
		}
		want[w.Name] = []string{service, mesh, strings.Join(others, ", "), topo(t).ID(w.Name).String()}
	}
	is := map[string][]string{}
	for _, row := range table(t, "workload", "Service", "mesh") {
		is[row[0]] = row[1:5]
	}
	if d := cmp.Diff(want, is); d != "" {
		t.Errorf("(-topology +document)\n%s", d)
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// first are the words in backquotes in the first cell of each row.
func first(rows [][]string) []string {
	var out []string
	for _, row := range rows {
		for _, m := range quoted.FindAllStringSubmatch(row[0], -1) {
			out = append(out, m[1])
		}
	}
	slices.Sort(out)
	return out
}

func TestTheDocumentsTemplatesAndVariablesAreTheCharts(t *testing.T) {
	var templates, variables []string
	named := regexp.MustCompile(`\{name: ([A-Z_]+), value`)
	err := fs.WalkDir(manifests.Chart(), "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(manifests.Chart(), path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".yaml") {
			templates = append(templates, strings.TrimPrefix(path, "templates/"))
		}
		for _, m := range named.FindAllSubmatch(b, -1) {
			variables = append(variables, string(m[1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(templates)
	slices.Sort(variables)
	if d := cmp.Diff(templates, first(table(t, "template", "makes"))); d != "" {
		t.Errorf("templates (-chart +document)\n%s", d)
	}
	if d := cmp.Diff(slices.Compact(variables), first(table(t, "variable", "who has it"))); d != "" {
		t.Errorf("environment variables (-chart +document)\n%s", d)
	}
}

func TestTheFoldersThatTheDocumentNamesAreThere(t *testing.T) {
	_, after, _ := strings.Cut(document(t), "## Project structure")
	_, after, _ = strings.Cut(after, "```\n")
	block, _, _ := strings.Cut(after, "```")
	n := 0
	for line := range strings.Lines(block) {
		n++
		if _, err := os.Stat(filepath.Join(root, strings.Fields(line)[0])); err != nil {
			t.Error(err)
		}
	}
	if n < 5 {
		t.Errorf("%d folders are named", n)
	}
}

// TestTheDocumentAndItsTestHaveTheSameCommands checks, without a cluster, that plan runs every printed command, and
// that every command of plan is printed.
func TestTheDocumentAndItsTestHaveTheSameCommands(t *testing.T) {
	commands := printed(t)
	var used []string
	for _, s := range plan() {
		if s.begins == "" {
			continue
		}
		c, err := s.find(commands)
		if err != nil {
			t.Error(err)
		}
		used = append(used, c)
	}
	slices.Sort(commands)
	slices.Sort(used)
	if d := cmp.Diff(commands, used); d != "" {
		t.Errorf("(-printed +run)\n%s", d)
	}
}

// The document must print everything that the first design promised, except for the corrections that its table lists.
func TestTheDocumentPrintsWhatTheFirstDesignPromised(t *testing.T) {
	commands := printed(t)
	for _, want := range []string{
		"docker build -t security-training-app:latest .",
		"helm install security-system ./manifests/chart --set global.geminiApiKey=$GEMINI_API_KEY",
		"kubectl get pods -n security-training -w",
		"kubectl port-forward svc/lms 8080:8080 -n security-training",
		"open http://localhost:8080",
		"kubectl logs -n security-training sts/spire-server",
		"kubectl logs -n security-training daemonset/spire-agent",
		"kubectl exec -n security-training sts/spire-server -- /opt/spire/bin/spire-server entry show",
		"kubectl logs -n security-training -l app=lms --tail=-1 | grep -i spiffe",
		"kubectl logs -n security-training -l app=llm-gateway --tail=-1",
	} {
		if !slices.ContainsFunc(commands, func(c string) bool { return strings.Join(strings.Fields(c), " ") == want }) {
			t.Errorf("not printed: %s", want)
		}
	}
}
