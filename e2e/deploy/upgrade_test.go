package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ownSecret waits until the gateway mounts the Secret that was made by hand, and checks that the chart's own is
// removed.
func ownSecret(t *testing.T, s *site) {
	s.ready(t)
	if out := s.run(t, "kubectl get pods -n "+s.namespace+" -l app=llm-gateway -o "+
		"jsonpath='{.items[*].spec.volumes[*].secret.secretName}'"); out != "my-gemini-key" {
		t.Errorf("the gateway mounts %q", out)
	}
	if out, err := s.command(s.ctx, "kubectl get secret gemini-api-key -n "+s.namespace).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "NotFound") {
		t.Errorf("the chart's Secret: %v\n%s", err, out)
	}
}

// uninstall runs the command and waits until the namespace and everything in it are removed.
func uninstall(t *testing.T, s *site, command string) {
	s.run(t, command)
	s.run(t, "kubectl wait --for=delete namespace/"+s.namespace+" --timeout=3m")
	left := "kubectl get clusterroles,clusterrolebindings,persistentvolumes -o name | grep -e " + s.namespace + " -e spire"
	if out := s.run(t, left+" || true"); out != "" {
		t.Errorf("%s leaves\n%s", command, out)
	}
}

// fromThePreviousChart installs the chart as it was before its last change, with the programs of that time. It upgrades
// the release to the present chart, then restarts the database. A row that was written before must remain.
func fromThePreviousChart(t *testing.T, s *site, _ string) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(s.ctx, "git", args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	before := "HEAD"
	if _, err := git("diff", "--quiet", "HEAD", "--", "manifests/chart"); err == nil {
		last, err := git("log", "-1", "--format=%H", "--", "manifests/chart")
		if err != nil {
			t.Fatalf("find the chart's last change: %v\n%s", err, last)
		}
		before = last + "~1"
		// If the chart has not changed since the first commit, upgrade from there. A shallow history cannot tell.
		if shallow, err := git("rev-parse", "--is-shallow-repository"); err == nil && shallow == "false" {
			if _, err := git("rev-parse", "--verify", before); err != nil {
				before = last
			}
		}
	}
	if out, err := git("rev-parse", "--verify", before); err != nil {
		t.Fatalf("find the chart before its last change; is the history there? %v\n%s", err, out)
	}
	archive := filepath.Join(filepath.Dir(s.tree), "before.tar")
	if out, err := git("archive", "--output="+archive, before); err != nil {
		t.Fatalf("unpack %s: %v\n%s", before, err, out)
	}
	old := *s
	old.tree = filepath.Join(filepath.Dir(s.tree), "before")
	if err := os.Mkdir(old.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	old.run(t, "tar -xf "+archive)
	old.run(t, "make build && docker build -q -t "+s.previous()+" . && kind load docker-image "+s.previous())
	old.run(t, "helm install security-system ./manifests/chart --set image.tag="+s.cluster+s.offline)
	s.ready(t)
	s.sql(
		t,
		`insert into people.person (id, name, email, role, team, manager, joined, zone, accounts)
			values ('kept', 'K', 'k@example.org', 'r', 't', '', '2026-01-01', 'UTC', '{}')`,
	)
	kept := func(after string) {
		t.Helper()
		if out := s.sql(t, `select count(*) from people.person where id = 'kept'`); out != "1" {
			t.Errorf("after %s the row is there %q times", after, out)
		}
	}
	kept("it was written")
	s.run(t, "helm upgrade security-system ./manifests/chart"+s.offline)
	s.ready(t)
	kept("the upgrade")
	pod := "kubectl get pods -n " + s.namespace + " -l app=postgres -o jsonpath='{.items[*].metadata.uid}'"
	was := s.run(t, pod)
	s.run(t, "kubectl delete pod -n "+s.namespace+" -l app=postgres")
	s.ready(t)
	if is := s.run(t, pod); is == was {
		t.Error("it is the database's old pod")
	}
	kept("the database's second start")
	uninstall(t, s, "helm uninstall security-system")
}

// sql asks the database over its unix socket, as the account that dbkeeper has.
func (s *site) sql(t *testing.T, query string) string {
	t.Helper()
	line := fmt.Sprintf(
		`kubectl exec -n %s deploy/postgres -c server -- bash -c '`+
			`PATH="$PATH:/usr/lib/postgresql/${PG_MAJOR:-17}/bin"; `+
			`psql -v ON_ERROR_STOP=1 -p "$DB_PORT" -d security_training -Atc "$0"' "%s"`,
		s.namespace,
		query,
	)
	return strings.TrimSpace(s.run(t, line))
}

// nothingLeft checks that the cluster's containers, volumes and kubectl entries are removed.
func nothingLeft(t *testing.T, s *site) {
	for _, line := range []string{
		"docker ps -aq --filter label=io.x-k8s.kind.cluster=" + s.cluster,
		"docker volume ls -q --filter label=io.x-k8s.kind.cluster=" + s.cluster,
		"kubectl config get-contexts -o name",
		"kubectl config get-clusters | grep -v ^NAME || true",
	} {
		if out := s.run(t, line); strings.TrimSpace(out) != "" {
			t.Errorf("%s: %s", line, out)
		}
	}
}
