package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
)

// down removes the lab from its cluster, and its folder.
func down(ctx context.Context, l *control.Lab) ([]string, error) {
	removed, s, err := EndSupervisor(ctx, l)
	if err != nil {
		return removed, err
	}
	more, err := uninstall(ctx, s)
	removed = append(removed, more...)
	if err != nil {
		return removed, err
	}
	more, err = l.StateDir().Remove()
	return append(removed, more...), err
}

// uninstall removes the release and the namespace with everything in it.
func uninstall(ctx context.Context, s Settings) ([]string, error) {
	_, client, err := connect(s.Kubeconfig, s.Context)
	if err != nil {
		return nil, err
	}
	cfg, err := helm(s)
	if err != nil {
		return nil, err
	}
	var removed []string
	if _, err := client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return removed, nil
	} else if err != nil {
		return removed, fmt.Errorf("uninstall: %w", err)
	}
	if err := checkOwner(ctx, client, s); err != nil { // the namespace and its contents are another lab's
		var conflict *lab.Error
		if errors.As(err, &conflict) {
			return removed, nil
		}
		return removed, err
	}
	remove := action.NewUninstall(cfg)
	remove.IgnoreNotFound, remove.WaitStrategy, remove.Timeout = true, kube.HookOnlyStrategy, patience
	if _, err := remove.Run(s.Release); err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return removed, fmt.Errorf("uninstall: %w", err)
	}
	removed = append(removed, "release "+s.Release)
	if err := client.CoreV1().Namespaces().Delete(ctx, s.Namespace, metav1.DeleteOptions{}); err != nil &&
		!apierrors.IsNotFound(err) {
		return removed, fmt.Errorf("remove namespace: %w", err)
	}
	for {
		_, err := client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return append(removed, "namespace "+s.Namespace), nil
		}
		select {
		case <-ctx.Done():
			return removed, fmt.Errorf("remove namespace: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// EndSupervisor ends a lab's supervisor, if it runs, and returns the lab's settings. If the supervisor does not end,
// the lab's folder is kept.
func EndSupervisor(ctx context.Context, l *control.Lab) (removed []string, s Settings, err error) {
	if err := l.StateDir().Read(&s); err != nil {
		return nil, s, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stuck := &lab.Error{Code: lab.ExitTimeout, What: "end the supervisor", Log: l.StateDir().Log(),
		Try: fmt.Sprintf("ps ax | grep 'supervise %s'   (end what it shows, then lab down again)", l.StateDir())}
	err = l.End(ctx)
	if control.Gone(err) {
		return nil, s, nil
	}
	if stuck.Why = err; err != nil {
		return nil, s, stuck
	}
	for !control.Gone(err) {
		select {
		case <-ctx.Done():
			stuck.Why = fmt.Errorf("it still answers: %w", ctx.Err())
			return nil, s, stuck
		case <-time.After(10 * time.Millisecond):
		}
		_, err = l.Status(ctx)
	}
	return []string{"process supervisor"}, s, nil
}
