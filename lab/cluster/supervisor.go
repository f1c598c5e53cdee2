package cluster

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/spire"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/registrar/podexec"
	"example.org/security-training/services/topology"
)

const mergePatch = types.MergePatchType

// supervisor is the part of the lab on this machine: the operator's access, a copy of every chain and log, and the
// conductor. The workloads do not need it.
type supervisor struct {
	control  *control.Server
	settings Settings
	config   *rest.Config
	client   kubernetes.Interface
	spire    *spire.Server

	mu      sync.Mutex
	pods    listers.PodLister
	unwatch context.CancelFunc
	changed chan struct{}
	away    error // why the cluster does not answer; nil if it does
}

// Supervise attaches to the lab in dir until ctx ends or the lab is told to end. `lab supervise` calls it.
func Supervise(ctx context.Context, dir string) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	klog.SetSlogLogger(log) // client-go writes to the same log in the same form
	s := &supervisor{changed: make(chan struct{})}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var err error
	if err = control.StateDir(dir).Read(&s.settings); err != nil {
		return err
	}
	if s.control, err = control.Open(control.StateDir(dir), log); err != nil {
		return err
	}
	defer s.control.Close()
	claim, err := control.Claim(s.settings.Host)
	if err != nil {
		return err
	}
	defer claim.Close()
	if s.config, s.client, err = connect(s.settings.Kubeconfig, s.settings.Context); err != nil {
		return err
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	if s.spire, err = s.reachSPIRE(); err != nil {
		return err
	}
	if err := s.forward(ctx, log); err != nil {
		return err
	}
	if err := s.givePeopleTLS(ctx); err != nil {
		return err
	}
	failed := make(chan error, 4)
	if err := s.control.Serve(s, stop, failed); err != nil {
		return err
	}
	if err := os.MkdirAll(s.control.Folder.Logs(), 0o700); err != nil {
		return err
	}
	for _, w := range s.control.Topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		if err := os.MkdirAll(string(s.control.Folder.Of(w.Name)), 0o700); err != nil {
			return err
		}
		go s.mirror(ctx, w.Name)
		go s.logs(ctx, w.Name, w.Name, s.control.Folder.WorkloadLog(w.Name))
	}
	for name, container := range Beneath {
		go s.logs(ctx, container.App, container.Container, s.control.Folder.WorkloadLog(name))
	}
	go s.publish(ctx)
	go s.askCluster(ctx)
	go s.control.Conduct(ctx, s.settings.Host)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		log.Error("supervisor", "error", err.Error())
		return err
	}
}

// Container names a container of the chart: the app label of its pod, and its own name.
type Container struct{ App, Container string }

// Beneath has the containers that are no rows of the topology, by the names of their logs.
var Beneath = map[string]Container{
	"spire-server":    {"spire-server", "spire-server"},
	"spire-agent":     {"spire-agent", "spire-agent"},
	"postgres-server": {"postgres", "server"},
}

// watch follows the pods of the namespace. It returns when it knows the present ones.
func (s *supervisor) watch(ctx context.Context) error {
	ctx, unwatch := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithNamespace(s.settings.Namespace))
	pods := factory.Core().V1().Pods()
	_, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { s.signal() },
		UpdateFunc: func(any, any) { s.signal() },
		DeleteFunc: func(any) { s.signal() },
	})
	var why atomic.Value // the reflector's last error
	if err == nil {
		err = pods.Informer().SetWatchErrorHandler(func(_ *cache.Reflector, err error) { why.Store(err.Error()) })
	}
	if err != nil {
		unwatch()
		return fmt.Errorf("watch pods: %w", err)
	}
	factory.Start(ctx.Done())
	patience, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if !cache.WaitForCacheSync(patience.Done(), pods.Informer().HasSynced) {
		unwatch()
		return fmt.Errorf("watch pods: the API server does not answer: %v", why.Load())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unwatch != nil {
		s.unwatch()
	}
	s.pods, s.unwatch = pods.Lister(), unwatch
	return nil
}

// askCluster asks the API server every second whether it answers. The remembered state of a stopped cluster's pods
// would look healthy for ever.
func (s *supervisor) askCluster(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := answers(ctx, s.client)
		s.mu.Lock()
		back := err == nil && s.away != nil
		s.mu.Unlock()
		if back { // the remembered state may be old
			err = s.watch(ctx)
		}
		s.mu.Lock()
		turned := (s.away == nil) != (err == nil)
		s.away = err
		s.mu.Unlock()
		if turned {
			s.signal()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *supervisor) signal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed implements control.Backend.
func (s *supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *supervisor) allPods() []*v1.Pod {
	s.mu.Lock()
	pods := s.pods
	s.mu.Unlock()
	list, err := pods.Pods(s.settings.Namespace).List(labels.Everything())
	if err != nil { // a lister of objects in memory cannot fail
		return nil
	}
	return list
}

// podOf returns a workload's pod: a ready one if there is one, or else one that runs, and never one that is being
// deleted.
func (s *supervisor) podOf(workload string) *v1.Pod {
	var running *v1.Pod
	for _, p := range s.allPods() {
		if p.Labels[labelApp] != workload || p.DeletionTimestamp != nil || p.Status.Phase != v1.PodRunning {
			continue
		}
		if ready(p) {
			return p
		}
		running = p
	}
	return running
}

func ready(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodReady && c.Status == v1.ConditionTrue
	})
}

// forward opens the lab's ports on its loopback address, and the dashboard's on the network if the spec asks for it.
func (s *supervisor) forward(ctx context.Context, log *slog.Logger) error {
	f := &forwarder{config: s.config, client: s.client, pod: s.podOf, log: log}
	for _, w := range s.control.Topo.Workloads {
		if w.Port != 0 {
			if err := f.listen(ctx, s.settings.Addr(w), w.Name, w.Port); err != nil {
				return err
			}
		}
		for _, port := range []int{w.Web, w.WebTLS} {
			if port == 0 {
				continue
			}
			if err := f.listen(ctx, net.JoinHostPort(s.settings.Host, strconv.Itoa(port)), w.Name, port); err != nil {
				return err
			}
		}
		if listen := s.settings.Spec.Listen; w.WebTLS != 0 && listen != "" {
			if _, _, err := net.SplitHostPort(listen); err != nil {
				listen = net.JoinHostPort(listen, strconv.Itoa(w.WebTLS))
			}
			if err := f.listen(ctx, listen, w.Name, w.WebTLS); err != nil {
				return err
			}
		}
	}
	return nil
}

// givePeopleTLS stores the dashboard's certificate, and the CA of people's certificates, in the cluster.
func (s *supervisor) givePeopleTLS(ctx context.Context) error {
	files, err := s.control.PeopleTLS(s.settings.Host, s.settings.Spec.Listen)
	if err != nil {
		return err
	}
	return putSecret(ctx, s.client, s.settings.Namespace, peopleTLSSecret, files)
}

// reachSPIRE connects to the SPIRE server's private API by an exec into its pod. The cluster's own authorisation
// decides who may do that.
func (s *supervisor) reachSPIRE() (*spire.Server, error) {
	dial := podexec.Dial(s.config, s.settings.Namespace, SPIREPod, SPIREBridge, SPIRECommand...)
	conn, err := grpc.NewClient(
		"passthrough:///"+spireServer,
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The server's pod may be replaced: a call waits for the next one, up to answerWithin.
		grpc.WithDefaultCallOptions(
			grpc.WaitForReady(true),
		),
		grpc.WithConnectParams(
			grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.5, MaxDelay: 2 * time.Second},
				MinConnectTimeout: 5 * time.Second,
			},
		),
	)
	if err != nil {
		return nil, fmt.Errorf("reach SPIRE: %w", err)
	}
	topo := s.control.Topo
	alias := registrar.Node(topo, s.settings.Cluster)
	return &spire.Server{
		Conn: conn, Topo: topo,
		Entries: registrar.Entries(topo, alias.SpiffeId, registrar.PodSelectors(s.settings.Namespace)),
	}, nil
}

// answerWithin is how long a call waits for a SPIRE server that does not answer.
const answerWithin = 45 * time.Second

// Mint implements control.Backend.
func (s *supervisor) Mint(
	ctx context.Context,
	id spiffeid.ID,
	at time.Time,
	ttl time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.spire.Mint(ctx, id, at, ttl)
}

// Order implements control.Backend.
func (s *supervisor) Order(ctx context.Context, o control.Order) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.spire.Order(ctx, o)
}

// Restart implements control.Backend. It deletes the pod, and the Deployment makes a new one.
func (s *supervisor) Restart(ctx context.Context, workload string) error {
	pod := s.podOf(workload)
	if pod == nil {
		return fmt.Errorf("restart %s: no pod of it is running", workload)
	}
	if err := s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("restart %s: %w", workload, err)
	}
	for {
		changed := s.Changed()
		if next := s.podOf(workload); next != nil && next.UID != pod.UID {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restart %s: %w", workload, ctx.Err())
		case <-changed:
		}
	}
}

// Status implements control.Backend.
func (s *supervisor) Status() lab.Status {
	issued := s.spire.Issued(s.control.Folder)
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	st := lab.Status{
		Name:     s.settings.Spec.Name,
		Runtime:  s.settings.Runtime,
		Identity: "spire",
		Isolated: "a pod for each workload",
		Healthy:  true,
		Seeded:   s.control.Folder.Milestones().Seeded(), Folder: string(s.control.Folder), Spec: s.settings.Spec,
		Processes: []lab.ProcessStatus{{Name: "supervisor", PID: os.Getpid()}},
	}
	for _, name := range slices.Sorted(maps.Keys(Beneath)) {
		st.Processes = append(st.Processes, s.beneath(name))
	}
	for _, w := range s.control.Topo.Workloads {
		if w.Web != 0 {
			st.Room = control.Room(s.settings.Host, w.WebTLS, s.settings.Spec.Listen)
			st.Dashboard = "http://" + net.JoinHostPort(s.settings.Host, strconv.Itoa(w.Web))
		}
		if w.Kind == topology.KindOperator {
			continue
		}
		ws := lab.WorkloadStatus{
			Name: w.Name, Kind: w.Kind, Address: s.settings.Addr(w), SPIFFEID: s.control.Topo.ID(w.Name).String(),
			Serial: issued[w.Name].Serial, Expires: issued[w.Name].Expires, State: "starting", Why: "has no pod yet",
		}
		if s.describe(&ws); away != nil {
			ws.Ready, ws.State, ws.Why = false, "unknown", "the cluster does not answer"
		}
		st.Healthy = st.Healthy && ws.Ready
		st.Workloads = append(st.Workloads, ws)
	}
	return st
}

// beneath returns the state of a container that is no row of the topology.
func (s *supervisor) beneath(name string) lab.ProcessStatus {
	c := Beneath[name]
	ps := lab.ProcessStatus{Name: name, Why: "has no pod yet"}
	newest := s.newestPod(c.App)
	if newest == nil {
		return ps
	}
	ps.Why = fmt.Sprintf("its pod is %s", newest.Status.Phase)
	for _, st := range newest.Status.ContainerStatuses {
		if st.Name == c.Container {
			ps.Restarts, ps.Why = int(st.RestartCount), notRunning(st)
		}
	}
	return ps
}

// notRunning says why a container does not run, or "" if it runs.
func notRunning(c v1.ContainerStatus) string {
	switch {
	case c.State.Waiting != nil && c.State.Waiting.Message != "":
		return c.State.Waiting.Reason + ": " + c.State.Waiting.Message
	case c.State.Waiting != nil:
		return c.State.Waiting.Reason
	case c.State.Terminated != nil:
		return fmt.Sprintf("ended with %d", c.State.Terminated.ExitCode)
	}
	return ""
}

// newestPod returns the newest pod of an app that is not being deleted, or nil.
func (s *supervisor) newestPod(app string) *v1.Pod {
	var newest *v1.Pod
	for _, p := range s.allPods() {
		if p.Labels[labelApp] == app && p.DeletionTimestamp == nil &&
			(newest == nil || p.CreationTimestamp.After(newest.CreationTimestamp.Time)) {
			newest = p
		}
	}
	return newest
}

// imageOf returns the image of a pod's container, or "" if the pod has no such container.
func imageOf(p *v1.Pod, container string) string {
	for _, c := range p.Spec.Containers {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}

// describe fills in the state of a workload from its newest pod.
func (s *supervisor) describe(ws *lab.WorkloadStatus) {
	newest := s.newestPod(ws.Name)
	if newest == nil {
		return
	}
	ws.Pod, ws.Program = newest.Name, imageOf(newest, ws.Name)
	ws.Why = fmt.Sprintf("its pod is %s", newest.Status.Phase)
	for _, c := range newest.Status.ContainerStatuses {
		ws.Restarts += int(c.RestartCount)
		if c.State.Terminated != nil {
			ws.State = "restarting"
		}
		if why := notRunning(c); why != "" {
			ws.Why = c.Name + ": " + why
		} else if !c.Ready {
			ws.Why = c.Name + " says that it is not ready"
		}
	}
	if ready(newest) {
		ws.State, ws.Ready, ws.Why = "ready", true, ""
	}
}
