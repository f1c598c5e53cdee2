package deploy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// pods is the number of pods of a complete installation: one for each row that runs, and SPIRE's.
func pods(t *testing.T) int {
	n := 3 // server, agent of the one node, registration
	for _, w := range topo(t).Workloads {
		if w.Binary != "" {
			n++
		}
	}
	return n
}

// watchPods reads the command's output, as a person would, and ends the command when every pod is ready. The command
// does not end by itself.
func watchPods(t *testing.T, s *site, command string) {
	ctx, cancel := context.WithTimeout(s.ctx, 8*time.Minute)
	defer cancel()
	cmd := s.command(ctx, command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := map[string]bool{}
	lines := bufio.NewScanner(out)
	all := false
	for !all && lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || f[0] == "NAME" {
			continue
		}
		is, want, _ := strings.Cut(f[1], "/")
		ready[f[0]] = is == want && f[2] == "Running" || f[2] == "Completed"
		all = len(ready) == pods(t)
		for _, r := range ready {
			all = all && r
		}
	}
	cancel()
	_ = cmd.Wait() // it was ended
	t.Logf("%6.1f s  %s", time.Since(start).Seconds(), command)
	if !all {
		t.Fatalf("%s: of %d pods these were seen, and whether they were ready: %v%s", command, pods(t), ready, s.look())
	}
}

// forward leaves the command running. It listens on a loopback address of its own, since another lab may use the port
// on 127.0.0.1.
func forward(t *testing.T, s *site, command string) {
	pid := os.Getpid()
	address := fmt.Sprintf("127.%d.%d.%d", 64+pid>>16&63, pid>>8&255, 1+pid&127)
	ctx, cancel := context.WithCancel(s.ctx)
	cmd := s.command(ctx, command+" --address "+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {
		cancel()
		_ = cmd.Wait()
		s.stop = nil
	}
	said := regexp.MustCompile(`Forwarding from (\S+) ->`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := said.FindStringSubmatch(lines.Text()); m != nil {
			s.forwarded = m[1]
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	t.Fatalf("%s: it does not forward", command)
}

// browse requests the page that the command opens, through the forwarded port.
func browse(t *testing.T, s *site, command string) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.forwarded)
		},
	}}
	resp, err := client.Get(strings.TrimPrefix(command, "open "))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(page), "Please sign in") {
		t.Errorf("%s: %s\n%s", command, resp.Status, page)
	}
	s.stop()
}

// entries compares the identities that SPIRE lists with the rows that run.
func entries(t *testing.T, s *site, command string) {
	out := s.run(t, command)
	is := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^SPIFFE ID\s*: (\S+)`).FindAllStringSubmatch(out, -1) {
		is[m[1]] = true
	}
	want := 1 // the alias of the nodes
	for _, w := range topo(t).Workloads {
		if w.Binary == "" {
			continue
		}
		want++
		if id := topo(t).ID(w.Name).String(); !is[id] {
			t.Errorf("SPIRE does not list %s", id)
		}
	}
	if len(is) != want {
		t.Errorf("SPIRE lists %d identities, want %d\n%s", len(is), want, out)
	}
}

// ready waits until everything that is installed runs in its newest revision and is ready.
func (s *site) ready(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.config)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 8*time.Minute)
	defer cancel()
	start := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var last []string
	for {
		waits, err := waiting(ctx, client, s.namespace)
		if err == nil {
			last = waits
		}
		if err == nil && len(waits) == 0 {
			t.Logf("%6.1f s  until all is ready", time.Since(start).Seconds())
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not ready: %v %v%s", last, err, s.look())
		}
	}
}

// waiting names what is not ready yet.
func waiting(ctx context.Context, client kubernetes.Interface, namespace string) (names []string, err error) {
	add := func(name string, well bool) {
		if !well {
			names = append(names, name)
		}
	}
	deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		n := *d.Spec.Replicas
		add(
			d.Name,
			d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == n && d.Status.ReadyReplicas == n &&
				d.Status.Replicas == n,
		)
	}
	sets, err := client.AppsV1().StatefulSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range sets.Items {
		n := *d.Spec.Replicas
		add(
			d.Name,
			d.Status.ObservedGeneration >= d.Generation && d.Status.CurrentRevision == d.Status.UpdateRevision &&
				d.Status.ReadyReplicas == n,
		)
	}
	agents, err := client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range agents.Items {
		n := d.Status.DesiredNumberScheduled
		add(
			d.Name,
			n > 0 && d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedNumberScheduled == n &&
				d.Status.NumberReady == n,
		)
	}
	jobs, err := client.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, j := range jobs.Items {
		add(j.Name, j.Status.Succeeded > 0)
	}
	if len(deployments.Items) == 0 || len(sets.Items) == 0 || len(agents.Items) == 0 || len(jobs.Items) == 0 {
		names = append(names, "what was installed")
	}
	return names, nil
}
