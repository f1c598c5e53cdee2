package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"example.org/security-training/lab/cluster"
	"example.org/security-training/services/env/needtest"
)

// api is the cluster of the lab under test.
type api struct {
	kubernetes.Interface
	config    *rest.Config
	namespace string
}

// reach connects to the lab's cluster.
func reach() (*api, error) {
	var s cluster.Settings
	if err := l.StateDir().Read(&s); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	return &api{client, config, s.Namespace}, err
}

// kube is the cluster of the lab under test. It skips the test if the lab has no cluster.
func kube(t *testing.T) *api {
	t.Helper()
	if !l.inCluster() {
		needtest.Lacks(t, needtest.Kind, "the lab under test is not on Kubernetes: LAB_RUNTIME=kind")
	}
	a, err := reach()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// processOf is the process of a workload on this machine: pid, or, if that is in a container, the container's first
// process as this machine counts it.
func processOf(pid int, name string) (int, error) {
	if pid != 0 || !l.inCluster() {
		return pid, nil
	}
	a, err := reach()
	if err != nil {
		return 0, err
	}
	app, container := name, name
	if c, ok := cluster.Beneath[name]; ok {
		app, container = c.App, c.Container
	}
	pods, err := a.CoreV1().Pods(a.namespace).List(context.Background(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return 0, err
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name == container && c.State.Running != nil && p.DeletionTimestamp == nil {
				return hostProcess(c.ContainerID)
			}
		}
	}
	return 0, fmt.Errorf("no container of %s is running", name)
}

// first matches the status of a process that is the first of its PID namespace.
var first = regexp.MustCompile(`(?m)^NSpid:.*\t1$`)

// hostProcess finds a container's first process among the processes of this machine, since kind's nodes are containers
// of this machine. The kernel writes the container's id into the name of its control group.
func hostProcess(containerID string) (int, error) {
	_, id, ok := strings.Cut(containerID, "://")
	if !ok {
		return 0, fmt.Errorf("container id %q", containerID)
	}
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	lowest := 0
	for _, path := range groups {
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), id) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			continue
		}
		if status, err := procFile(pid, "status"); err == nil && first.Match(status) {
			return pid, nil // other processes may have started in the container since
		}
		if lowest == 0 || pid < lowest {
			lowest = pid
		}
	}
	if lowest == 0 {
		return 0, errors.New("its process is not one of this machine's, or belongs to another user")
	}
	return lowest, nil
}
