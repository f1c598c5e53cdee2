package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"example.org/security-training/lab/control"
)

// Explainer collects what the API server knows of a lab, within half a minute and with or without a supervisor: the
// objects of its namespace, their events, and the logs of each container and of the one before it.
type Explainer struct{}

const explainLines = 2000

// Explain implements bundle.Explainer. It reads Secrets only so that they can be hidden.
func (Explainer) Explain(
	ctx context.Context,
	f control.StateDir,
) (files map[string][]byte, secrets []string, err error) {
	var s Settings
	if err := f.Read(&s); err != nil {
		return nil, nil, err
	}
	_, client, err := connect(s.Kubeconfig, s.Context)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	hidden, err := client.CoreV1().Secrets(s.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil { // without them, nothing can be hidden
		return nil, nil, fmt.Errorf("read the namespace's secrets: %w", err)
	}
	for _, secret := range hidden.Items {
		for _, value := range secret.Data {
			secrets = append(secrets, string(value))
		}
	}
	files = map[string][]byte{}
	var faults []error
	put := func(name string, list any, err error) {
		if err == nil {
			var text []byte
			text, err = yaml.Marshal(list)
			files["kubernetes/"+name+".yaml"] = text
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("list %s: %w", name, err))
		}
	}
	all := metav1.ListOptions{}
	events, err := client.CoreV1().Events(s.Namespace).List(ctx, all)
	put("events", events, err)
	nodes, err := client.CoreV1().Nodes().List(ctx, all)
	put("nodes", nodes, err)
	services, err := client.CoreV1().Services(s.Namespace).List(ctx, all)
	put("services", services, err)
	claims, err := client.CoreV1().PersistentVolumeClaims(s.Namespace).List(ctx, all)
	put("persistentvolumeclaims", claims, err)
	deployments, err := client.AppsV1().Deployments(s.Namespace).List(ctx, all)
	put("deployments", deployments, err)
	sets, err := client.AppsV1().StatefulSets(s.Namespace).List(ctx, all)
	put("statefulsets", sets, err)
	jobs, err := client.BatchV1().Jobs(s.Namespace).List(ctx, all)
	put("jobs", jobs, err)
	pods, err := client.CoreV1().Pods(s.Namespace).List(ctx, all)
	put("pods", pods, err)
	if err != nil {
		return files, secrets, errors.Join(faults...)
	}
	for _, pod := range pods.Items {
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			for suffix, options := range map[string]*v1.PodLogOptions{"": {}, ".before": {Previous: true}} {
				options.Container, options.TailLines = c.Name, new(int64(explainLines))
				text, err := client.CoreV1().Pods(s.Namespace).GetLogs(pod.Name, options).DoRaw(ctx)
				if err == nil { // a container that has not run, or not twice, has no such log
					files["kubernetes/logs/"+pod.Name+"."+c.Name+suffix+".log"] = text
				}
			}
		}
	}
	return files, secrets, errors.Join(faults...)
}
