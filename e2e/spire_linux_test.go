package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.org/security-training/lab"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/kind"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/registrar/podexec"
	"example.org/security-training/services/topology"
)

// entries are the entries of SPIRE's server, by id.
func (a *api) entries(t *testing.T) map[string]*types.Entry {
	t.Helper()
	dial := podexec.Dial(a.config, a.namespace, cluster.SPIREPod, cluster.SPIREBridge, cluster.SPIRECommand...)
	conn, err := grpc.NewClient(
		"passthrough:///spire-server",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	list, err := entryv1.NewEntryClient(conn).
		ListEntries(t.Context(), &entryv1.ListEntriesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*types.Entry{}
	for _, e := range list.Entries {
		out[e.Id] = e
	}
	return out
}

func TestSPIREKnowsTheRowsOfTheTopologyAndNobodyElse(t *testing.T) {
	a := kube(t)
	there := a.entries(t)
	want := registrar.Entries(l.topo, nil, registrar.PodSelectors(a.namespace))
	for _, w := range want {
		e := there[w.Id]
		if e == nil {
			t.Errorf("SPIRE does not know %s", w.Id)
			continue
		}
		var is, should []string
		for _, s := range e.Selectors {
			is = append(is, s.Type+":"+s.Value)
		}
		for _, s := range w.Selectors {
			should = append(should, s.Type+":"+s.Value)
		}
		slices.Sort(is)
		slices.Sort(should)
		if e.SpiffeId.Path != w.SpiffeId.Path || !slices.Equal(is, should) || !slices.Equal(e.DnsNames, w.DnsNames) {
			t.Errorf(
				"SPIRE gives %s to %v as %v, want %s to %v as %v",
				e.SpiffeId.Path,
				is,
				e.DnsNames,
				w.SpiffeId.Path,
				should,
				w.DnsNames,
			)
		}
	}
	if len(there) != len(want)+1 { // the alias of the nodes
		t.Errorf("SPIRE has %d entries, want %d and the nodes' alias", len(there), len(want))
	}
}

// A pod that differs from the gateway's only in its account or its namespace gets no identity, and so never becomes
// ready.
func TestAPodOfAnotherAccountOrNamespaceGetsNoIdentity(t *testing.T) {
	a := kube(t)
	gateway := serving(t, generate)
	real, err := a.CoreV1().Pods(a.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + gateway})
	if err != nil || len(real.Items) == 0 {
		t.Fatalf("find the gateway's pod: %v", err)
	}
	elsewhere := a.namespace + "-elsewhere"
	if _, err := a.CoreV1().Namespaces().Create(
		t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: elsewhere}}, metav1.CreateOptions{},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.CoreV1().Namespaces().Delete(context.Background(), elsewhere, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	for _, x := range []struct{ why, namespace, account string }{
		{"another account", a.namespace, "default"},
		{"another namespace", elsewhere, gateway + "-sa"},
	} {
		t.Run(x.why, func(t *testing.T) {
			spec := real.Items[0].Spec.DeepCopy()
			spec.ServiceAccountName, spec.DeprecatedServiceAccount, spec.NodeName = x.account, "", ""
			spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Projected != nil })
			for i, v := range spec.Volumes { // the impostor brings files of its own
				if v.PersistentVolumeClaim != nil || v.Secret != nil {
					spec.Volumes[i].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
				}
			}
			spec.Containers[0].Env = slices.DeleteFunc(
				spec.Containers[0].Env,
				func(e corev1.EnvVar) bool { return e.Name == "GEMINI_API_KEY_FILE" },
			)
			spec.Containers[0].LivenessProbe, spec.Containers[0].StartupProbe = nil, nil
			if x.namespace != a.namespace {
				text, err := a.CoreV1().ConfigMaps(a.namespace).Get(t.Context(), "topology", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := a.CoreV1().ConfigMaps(x.namespace).Create(
					t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "topology"}, Data: text.Data},
					metav1.CreateOptions{},
				); err != nil {
					t.Fatal(err)
				}
				if _, err := a.CoreV1().ServiceAccounts(x.namespace).Create(
					t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: x.account}}, metav1.CreateOptions{},
				); err != nil {
					t.Fatal(err)
				}
			}
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Name:      "impostor",
					Namespace: x.namespace,
					Labels:    map[string]string{"app": "impostor"},
				},
				Spec: *spec,
			}
			if _, err := a.CoreV1().Pods(x.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				now := int64(0)
				if err := a.CoreV1().Pods(
					x.namespace,
				).Delete(context.Background(), "impostor", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil &&
					!apierrors.IsNotFound(err) {
					t.Error(err)
				}
			})
			// The agent is the refusing side. It logs which process it refused.
			await(t, 2*time.Minute, "the agent to turn the impostor away", func() bool {
				log, err := a.logs(t, "app=spire-agent", "spire-agent")
				if err != nil {
					return false
				}
				for _, pid := range a.pidsOf(t, x.namespace, "impostor") {
					for line := range strings.Lines(log) {
						if strings.Contains(line, "No identity issued") && strings.Contains(line, "pid="+pid+" ") {
							return true
						}
					}
				}
				return false
			})
			is, err := a.CoreV1().Pods(x.namespace).Get(t.Context(), "impostor", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range is.Status.ContainerStatuses {
				if c.Ready {
					t.Error("the impostor is ready")
				}
			}
		})
	}
}

// pidsOf are the numbers of a pod's first process, in each of the PID namespaces that it is in: this machine's, the
// node's, its own.
func (a *api) pidsOf(t *testing.T, namespace, name string) []string {
	t.Helper()
	pod, err := a.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Running == nil {
		return nil // it has not begun, or is between two of its lives
	}
	pid, err := hostProcess(pod.Status.ContainerStatuses[0].ContainerID)
	if err != nil {
		return nil
	}
	status, err := procFile(pid, "status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.Fields(numbers)
		}
	}
	return nil
}

// logs are the logs of the containers of the pods of a selector.
func (a *api) logs(t *testing.T, selector, container string) (string, error) {
	t.Helper()
	pods, err := a.CoreV1().Pods(a.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, p := range pods.Items {
		b, err := a.CoreV1().Pods(a.namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container}).DoRaw(t.Context())
		if err != nil {
			return "", err
		}
		all.Write(b)
	}
	return all.String(), nil
}

// replaced deletes the pods of a selector and waits until others are ready in their place.
func (a *api) replaced(t *testing.T, selector string) {
	t.Helper()
	list := func() []corev1.Pod {
		pods, err := a.CoreV1().Pods(a.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			t.Fatal(err)
		}
		return pods.Items
	}
	old := map[string]bool{}
	for _, p := range list() {
		old[string(p.UID)] = true
		if err := a.CoreV1().Pods(a.namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(old) == 0 {
		t.Fatalf("there is no pod of %s", selector)
	}
	await(t, 3*time.Minute, "another pod of "+selector, func() bool {
		pods := list()
		return len(pods) > 0 && !slices.ContainsFunc(pods, func(p corev1.Pod) bool {
			return old[string(p.UID)] || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			})
		})
	})
}

func TestTheSPIREServerComesBackWithItsCAAndItsEntries(t *testing.T) {
	a := kube(t)
	_, bundles, err := l.Mint(t.Context(), l.topo.ID(serving(t, generate)), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := bundles.Get(l.topo.Domain())
	entries := a.entries(t)
	a.replaced(t, "app=spire-server")
	if _, bundles, err = l.Mint(t.Context(), l.topo.ID(serving(t, generate)), time.Minute); err != nil {
		t.Fatal(err)
	}
	after, _ := bundles.Get(l.topo.Domain())
	if mesh.TrustDigest(before) != mesh.TrustDigest(after) {
		t.Error("it came back with another CA")
	}
	now := a.entries(t)
	for id, e := range entries {
		if is := now[id]; is == nil || is.CreatedAt != e.CreatedAt {
			t.Errorf("the entry of %s is another", id)
		}
	}
	awaitHealthy(t)
}

func TestTheAgentIsReplacedAndIdentitiesGoOn(t *testing.T) {
	a := kube(t)
	during(t, func(ctx context.Context) { a.replaced(t, "app=spire-agent") })
	before := serialsOf(t)
	if err := l.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, 2*time.Minute, "new serial numbers from the new agent", func() bool { return allNew(before, serialsOf(t)) })
	awaitHealthy(t)
}

func TestIdentitiesOfAMinuteRotateUnderTraffic(t *testing.T) {
	kube(t)
	if err := l.SetTTL(t.Context(), time.Minute, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.SetTTL(context.Background(), time.Hour, 0); err != nil {
			t.Error(err)
		}
		if err := l.Rotate(context.Background()); err != nil {
			t.Error(err)
		}
	})
	before := serialsOf(t)
	if err := l.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, 2*time.Minute, "identities of a minute", func() bool { return allNew(before, serialsOf(t)) })
	during(t, func(context.Context) {
		first := serialsOf(t)
		await(t, 2*time.Minute, "everybody's next identity", func() bool { return allNew(first, serialsOf(t)) })
	})
}

// A lab does not take over another lab's cluster or namespace, not even if another user's lab has the same name.
func TestALabOfTheSameNameElsewhereTakesNothingOver(t *testing.T) {
	kube(t)
	home := needtest.PrivateDir(t)
	env := []string{
		"LAB_HOME=" + home,
		"KUBECONFIG=" + l.StateDir().Path("kubeconfig"),
		"LAB_APP_IMAGE=security-training-app:any",
	}
	runtimes := []string{cluster.RuntimeName}
	if l.runtime == kind.RuntimeName {
		runtimes = append(runtimes, kind.RuntimeName)
	}
	for _, runtime := range runtimes {
		out, err := command(t.Context(), l.name, "up", "--runtime", runtime).withEnv(env...).run()
		if code(err) != lab.ExitConflict || !strings.Contains(out, "elsewhere or gone") {
			t.Errorf("up --runtime %s: %v, want exit %d\n%s", runtime, err, lab.ExitConflict, out)
		}
		if out, err := command(t.Context(), l.name, "down").withEnv(env...).run(); err != nil ||
			!strings.Contains(out, "nothing to remove") {
			t.Errorf("down after up --runtime %s: %v\n%s", runtime, err, out)
		}
	}
	// a folder that is left of a cluster which is gone is no right to the one of the same name
	if l.runtime == kind.RuntimeName {
		left := control.StateDir(filepath.Join(home, l.name))
		var s cluster.Settings
		if err := l.StateDir().Read(&s); err != nil {
			t.Fatal(err)
		}
		topo, err := os.ReadFile(l.StateDir().Topology())
		if err == nil {
			err = os.MkdirAll(string(left), 0o700)
		}
		if err := errors.Join(
			err, os.WriteFile(left.Topology(), topo, 0o600), left.Write(s),
			os.WriteFile(left.Path("container"), []byte("another"), 0o600),
		); err != nil {
			t.Fatal(err)
		}
		if out, err := command(t.Context(), l.name, "up").withEnv(env...).run(); code(err) != lab.ExitConflict {
			t.Errorf("up: %v, want exit %d\n%s", err, lab.ExitConflict, out)
		}
		if out, err := command(t.Context(), l.name, "down").withEnv(env...).run(); err != nil ||
			strings.Contains(out, "control-plane") {
			t.Errorf("down: %v, and the other's cluster is to stay\n%s", err, out)
		}
	}
	if left, err := os.ReadDir(home); len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left in %s: %v, %v", home, left, err)
	}
	awaitHealthy(t)
}

func TestUpStartsAStoppedClusterAgain(t *testing.T) {
	kube(t)
	if l.runtime != kind.RuntimeName {
		needtest.Lacks(t, needtest.Kind, "the cluster is not the lab's own to stop")
	}
	nodes, err := exec.CommandContext(
		t.Context(), "docker", "ps", "-q", "--filter", "label=io.x-k8s.kind.cluster=security-training-"+l.name,
	).
		Output()
	if err != nil || len(bytes.Fields(nodes)) == 0 {
		t.Fatalf("find the cluster's containers: %v", err)
	}
	position := watermarks(t).Position
	for _, n := range bytes.Fields(nodes) {
		if out, err := exec.CommandContext(
			t.Context(), "docker", "stop", "--time", "2", string(n),
		).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	await(t, time.Minute, "status to say that the cluster is away", func() bool {
		st, err := l.Status(t.Context())
		return err == nil && !st.Healthy
	})
	if out, err := command(t.Context(), l.name, "status").run(); code(err) != lab.ExitPartly {
		t.Errorf("status of a stopped cluster: %v, want exit %d\n%s", err, lab.ExitPartly, out)
	}
	if out, err := command(t.Context(), l.name, "up").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	awaitHealthy(t)
	if after := watermarks(t).Position; after < position {
		t.Errorf("the log ends at %d, it ended at %d before", after, position)
	}
}

// A collector must not reach the gateway's port, even with an identity. If the network plug-in does not enforce
// policies, only the handshake refuses it, and other tests cover that.
func TestTheNetworkItselfIsClosedToWhoIsNotListed(t *testing.T) {
	a := kube(t)
	list, err := a.NetworkingV1().NetworkPolicies(a.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) < len(l.topo.Workloads)-1 {
		t.Fatalf("%d network policies, %v", len(list.Items), err)
	}
	gateway, _ := l.topo.Workload(serving(t, generate))
	reached := a.dialFrom(t, named(t, topology.KindCollector, "git"), gateway)
	listed := a.dialFrom(t, named(t, topology.KindDashboard, ""), gateway)
	if !listed {
		t.Fatal("the dashboard does not reach the gateway")
	}
	if reached {
		needtest.Lacks(
			t,
			needtest.NetworkPolicy,
			"the cluster's network plug-in does not enforce NetworkPolicies: a collector reaches the gateway's port, where "+
				"the handshake refuses it",
		)
	}
}

// dialFrom says whether a TCP connection can be opened from a workload's pod to another workload's service.
func (a *api) dialFrom(t *testing.T, from string, to topology.Workload) bool {
	t.Helper()
	services, err := a.CoreV1().Services(a.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(services.Items, func(s corev1.Service) bool { return s.Spec.Selector["app"] == to.Name })
	if i < 0 {
		t.Fatalf("%s has no service", to.Name)
	}
	pid, err := processOf(0, from)
	if err != nil {
		t.Fatal(err)
	}
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		needtest.Lacks(t, needtest.PodNetwork, "the network of a pod cannot be entered here: %v", err)
	}
	defer space.Close()
	type result struct {
		reached bool
		err     error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in another network, ends with this goroutine
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			results <- result{err: err}
			return
		}
		conn, err := net.DialTimeout(
			"tcp",
			net.JoinHostPort(services.Items[i].Spec.ClusterIP, strconv.Itoa(to.Port)),
			3*time.Second,
		)
		if err == nil {
			conn.Close()
		}
		results <- result{reached: err == nil}
	}()
	r := <-results
	if r.err != nil {
		needtest.Lacks(t, needtest.PodNetwork, "the network of a pod cannot be entered here: %v", r.err)
	}
	return r.reached
}
