package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.org/security-training/services/registrar/podexec"
)

// What the chart calls its things; the chart's tests and this package's e2e runs fail where they differ.
const (
	auditInPod    = "/var/lib/security-training/audit"
	bridgeInPod   = "/app/bridge"
	topologyMap   = "topology"
	topologyKey   = "topology.yaml"
	labelApp      = "app"
	spireServer   = "spire-server"
	annotationFor = "security-training/topology" // hurries the kubelet to bring a changed ConfigMap

	// Where the SPIRE server's private API is reached by an exec.
	SPIREPod    = "spire-server-0"
	SPIREBridge = "bridge"
)

// SPIRECommand is what that exec runs.
var SPIRECommand = []string{bridgeInPod, "connect", "/tmp/spire-server/private/api.sock"}

// mirror keeps a copy of a workload's chain of decisions, as far as it is written, for as long as ctx lasts. What is
// there already is not fetched again.
func (s *supervisor) mirror(ctx context.Context, workload string) {
	path := s.control.Folder.WorkloadAudit(workload)
	s.keepCopying(
		ctx,
		"audit of "+workload,
		workload,
		200*time.Millisecond,
		func(pod *v1.Pod) error { return s.copyAudit(ctx, pod, workload, path) },
	)
}

// keepCopying copies from a workload's pod, from one pod to the next, with pauses between, until ctx ends. A fault that
// lasts is said once.
func (s *supervisor) keepCopying(
	ctx context.Context,
	what, workload string,
	pause time.Duration,
	copying func(*v1.Pod) error,
) {
	said := ""
	for ctx.Err() == nil {
		if pod := s.podOf(workload); pod != nil {
			switch err := copying(pod); {
			case ctx.Err() != nil:
			case err == nil:
				said = ""
			case err.Error() != said:
				said = err.Error()
				s.control.Log.Warn("copy", "what", what, "pod", pod.Name, "error", said)
			}
		}
		s.await(ctx, pause)
	}
}

// copyAudit appends what the pod's file has beyond ours, and goes on until the stream ends. It copies whole lines: one
// that a crash cut off is removed there, and must not be in the middle of ours. What was copied is never replaced: a
// pod that writes its history again brings lines that do not continue it, which the notary does not sign and
// verification names.
func (s *supervisor) copyAudit(ctx context.Context, pod *v1.Pod, workload, path string) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	at, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	in, err := podexec.Dial(
		s.config,
		pod.Namespace,
		pod.Name,
		workload,
		bridgeInPod,
		"tail",
		auditInPod,
		strconv.FormatInt(at, 10),
	)(
		ctx,
		"",
	)
	if err != nil {
		return err
	}
	defer in.Close()
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	return copyLines(out, in)
}

// mostOfLine is how many bytes of a line may wait for its end.
const mostOfLine = 1 << 20

// copyLines copies the whole lines of in to out, until in ends. One that is too long is an error; nothing of it is
// copied.
func copyLines(out io.Writer, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), mostOfLine)
	lines.Split(func(data []byte, _ bool) (int, []byte, error) {
		end := bytes.LastIndexByte(data, '\n') + 1
		if end == 0 {
			return 0, nil, nil // more is read; at the end of in, what is left has no end
		}
		return end, data[:end], nil
	})
	for lines.Scan() {
		if _, err := out.Write(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// logs keeps a copy of what a pod's container says, from one pod to the next.
func (s *supervisor) logs(ctx context.Context, workload, container, path string) {
	s.keepCopying(
		ctx,
		"log of "+container,
		workload,
		500*time.Millisecond,
		func(pod *v1.Pod) error { return s.copyLog(ctx, pod, container, path) },
	)
}

// copyLog goes on from when the copy was last written to, to the second.
func (s *supervisor) copyLog(ctx context.Context, pod *v1.Pod, container, path string) error {
	options := &v1.PodLogOptions{Container: container, Follow: true}
	if copied, err := os.Stat(path); err == nil && copied.Size() > 0 {
		options.SinceTime = &metav1.Time{Time: copied.ModTime()}
	}
	in, err := s.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, in)
	return err
}

// await waits for pause, and then for a change among the pods, or for as long again.
func (s *supervisor) await(ctx context.Context, pause time.Duration) {
	changed := s.Changed()
	select {
	case <-ctx.Done():
		return
	case <-time.After(pause):
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-time.After(pause):
	}
}

// publish gives the cluster the topology of the lab's folder whenever that changes, valid or not: it is for the
// workloads to refuse one whole, and to say so in their audit, as they do locally.
func (s *supervisor) publish(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	path := s.control.Folder.Topology()
	var seen time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		info, err := os.Stat(path)
		if err != nil || info.ModTime().Equal(seen) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		published, err := s.published(ctx)
		if err != nil { // not installed yet
			continue
		}
		if string(text) == published {
			seen = info.ModTime()
			continue
		}
		if err := s.putTopology(ctx, string(text)); err != nil {
			s.control.Log.Error("publish topology", "error", err.Error())
			continue
		}
		seen = info.ModTime()
		go s.hurryKubelets(ctx, seen)
	}
}

func (s *supervisor) published(ctx context.Context) (string, error) {
	m, err := s.client.CoreV1().ConfigMaps(s.settings.Namespace).Get(ctx, topologyMap, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return m.Data[topologyKey], nil
}

// putTopology replaces what the ConfigMap holds.
func (s *supervisor) putTopology(ctx context.Context, text string) error {
	patch, err := json.Marshal(map[string]map[string]string{"data": {topologyKey: text}})
	if err != nil {
		return err
	}
	if _, err := s.client.CoreV1().ConfigMaps(
		s.settings.Namespace,
	).Patch(ctx, topologyMap, mergePatch, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("publish topology: %w", err)
	}
	return nil
}

// hurryKubelets touches every pod, at once and again after growing pauses: a kubelet looks at a pod's volumes when the
// pod changes, and else about once a minute, but the pod's change may reach it before the ConfigMap's does. It ends
// when the topology of at is no longer the newest.
func (s *supervisor) hurryKubelets(ctx context.Context, at time.Time) {
	for pause := 250 * time.Millisecond; pause < 20*time.Second; pause *= 2 {
		if info, err := os.Stat(s.control.Folder.Topology()); err != nil || !info.ModTime().Equal(at) {
			return
		}
		touch := fmt.Appendf(
			nil,
			`{"metadata":{"annotations":{%q:%q}}}`,
			annotationFor,
			strconv.FormatInt(time.Now().UnixNano(), 10),
		)
		for _, p := range s.allPods() {
			if _, ours := s.control.Topo.Workload(p.Labels[labelApp]); !ours {
				continue
			}
			if _, err := s.client.CoreV1().Pods(
				p.Namespace,
			).Patch(ctx, p.Name, mergePatch, touch, metav1.PatchOptions{}); err != nil &&
				ctx.Err() == nil {
				s.control.Log.Debug("hurry kubelet", "pod", p.Name, "error", err.Error()) // the pod may be gone
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
