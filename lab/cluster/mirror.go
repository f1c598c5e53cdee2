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

// Names that the chart uses. Tests of the chart and the e2e tests fail if they differ.
const (
	auditInPod    = "/var/lib/security-training/audit"
	bridgeInPod   = "/app/bridge"
	topologyMap   = "topology"
	topologyKey   = "topology.yaml"
	labelApp      = "app"
	spireServer   = "spire-server"
	annotationFor = "security-training/topology" // a change of it makes the kubelet update the ConfigMap

	// The container and the program through which the SPIRE server's private API is reached.
	SPIREPod    = "spire-server-0"
	SPIREBridge = "bridge"
)

// SPIRECommand is the command that is executed there.
var SPIRECommand = []string{bridgeInPod, "connect", "/tmp/spire-server/private/api.sock"}

// mirror keeps a local copy of a workload's audit chain until ctx ends. It does not fetch again what it has.
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

// keepCopying copies from a workload's pod, and from each pod that follows, with pauses, until ctx ends. It logs a
// lasting error once.
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

// copyAudit appends what the pod's file has beyond the local copy, and goes on until the stream ends. It copies only
// whole lines: the pod removes a line that a crash cut off, so it must not get into the copy. It never replaces what
// was copied. If a pod rewrites its history, the new lines do not continue the old ones: the notary does not sign them,
// and verification reports them.
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

// mostOfLine is the maximal length of a line, in bytes.
const mostOfLine = 1 << 20

// copyLines copies the whole lines of in to out, until in ends. It returns an error for a line that is too long, and
// copies nothing of it.
func copyLines(out io.Writer, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), mostOfLine)
	lines.Split(func(data []byte, _ bool) (int, []byte, error) {
		end := bytes.LastIndexByte(data, '\n') + 1
		if end == 0 {
			return 0, nil, nil // read on; a rest without an end is dropped at the end of in
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

// logs keeps a local copy of the log of a pod's container, and of each pod that follows.
func (s *supervisor) logs(ctx context.Context, workload, container, path string) {
	s.keepCopying(
		ctx,
		"log of "+container,
		workload,
		500*time.Millisecond,
		func(pod *v1.Pod) error { return s.copyLog(ctx, pod, container, path) },
	)
}

// copyLog continues from the second in which the copy was last written.
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

// await waits for pause, and then until a pod changes, but not longer than pause again.
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

// publish writes the topology of the lab's folder to the cluster whenever it changes, even if it is not valid: as in a
// local lab, the workloads must refuse an invalid one and record that in their audits.
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
		if err != nil { // it is not installed yet
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

// putTopology replaces the content of the ConfigMap.
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

// hurryKubelets changes an annotation of every pod, at once and again after growing pauses. A kubelet looks at a pod's
// volumes when the pod changes, and otherwise about once a minute; but it may see the pod's change before the
// ConfigMap's. It stops when the topology of the time at is not the newest any more.
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
				s.control.Log.Debug("hurry kubelet", "pod", p.Name, "error", err.Error()) // the pod may have been deleted
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
