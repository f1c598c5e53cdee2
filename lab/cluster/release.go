package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
)

// install installs the chart or upgrades it. It does not wait for the workloads; AwaitReady does, and reports why one
// is not ready.
func (in *Installation) install(ctx context.Context, s Settings) error {
	c, err := Chart()
	if err != nil {
		return err
	}
	values, err := in.values(s)
	if err != nil {
		return err
	}
	cfg, err := helm(s)
	if err != nil {
		return err
	}
	history, err := action.NewHistory(cfg).Run(s.Release)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound), err == nil && len(history) == 0:
		install := action.NewInstall(cfg)
		install.ReleaseName, install.Namespace = s.Release, helmNamespace
		install.WaitStrategy, install.Timeout = kube.HookOnlyStrategy, patience
		_, err = install.RunWithContext(ctx, c, values)
	case err == nil:
		if err = unlock(cfg, s.Release); err != nil {
			break
		}
		upgrade := action.NewUpgrade(cfg)
		upgrade.Namespace, upgrade.ForceConflicts = helmNamespace, true
		upgrade.WaitStrategy, upgrade.Timeout = kube.HookOnlyStrategy, patience
		_, err = upgrade.RunWithContext(ctx, s.Release, c, values)
	}
	if err != nil {
		return &lab.Error{
			Code: lab.ExitPartly,
			What: "install the chart",
			Why:  err,
			Try:  "helm history " + s.Release + "   (then lab up again, or lab down)",
		}
	}
	return nil
}

// values returns the lab's values for the chart. It returns an error if the policy has a fault: new pods would fail
// again and again, and the chart's network policies would follow a policy that the workloads refuse.
func (in *Installation) values(s Settings) (map[string]any, error) {
	if _, err := lab.RunningPolicy(in.Folder); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(in.Folder.Topology()) // it may have been edited
	if err != nil {
		return nil, fmt.Errorf("read the lab's topology: %w", err)
	}
	repository, tag := splitImage(in.Image)
	return loader.MergeMaps(map[string]any{
		"namespace": s.Namespace,
		"topology":  string(text),
		"image":     map[string]any{"repository": repository, "tag": tag},
		"lms":       map[string]any{"peopleTLSSecret": peopleTLSSecret},
		"spire":     map[string]any{"clusterName": s.Cluster},
	}, s.Values), nil
}

// splitImage splits REPOSITORY:TAG.
func splitImage(image string) (repository, tag string) {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i], image[i+1:]
	}
	return image, ""
}

// choices returns the values that are chosen when the lab is made and then stay. Secrets are in them by name only.
func (in *Installation) choices(m control.Model, p control.Provider) map[string]any {
	values := map[string]any{"llm": map[string]any{"backend": m.Backend, "model": m.Name}}
	if m.Key != "" {
		values["global"] = map[string]any{"geminiSecret": geminiSecret}
	}
	if p.Issuer != "" {
		oidc := map[string]any{"issuer": p.Issuer, "clientID": p.Client, "redirectURL": p.Redirect}
		if p.Secret != "" {
			oidc["clientSecret"] = clientSecret
		}
		values["lms"] = map[string]any{"oidc": oidc}
	}
	return loader.MergeMaps(values, in.Values)
}

// unlock marks a release as failed whose install or upgrade was interrupted. Helm would think that it is still in
// progress. No other process can be at work, because this one holds the lab's turn and the namespace is the lab's own.
func unlock(cfg *action.Configuration, name string) error {
	last, err := cfg.Releases.Last(name)
	if err != nil {
		return err
	}
	r, ok := last.(*release.Release)
	if !ok || !r.Info.Status.IsPending() {
		return nil
	}
	r.SetStatus(common.StatusFailed, "it was interrupted")
	return cfg.Releases.Update(r)
}

// helm returns Helm's configuration for a cluster. It keeps releases where `helm install` without a namespace keeps
// them.
func helm(s Settings) (*action.Configuration, error) {
	// It does not use Helm's own settings, because the variables HELM_KUBE… could send the chart to another cluster
	// than its secrets.
	flags, namespace := genericclioptions.NewConfigFlags(true), helmNamespace
	flags.KubeConfig, flags.Context, flags.Namespace = &s.Kubeconfig, &s.Context, &namespace
	flags.WrapConfigFn = func(config *rest.Config) *rest.Config {
		raiseLimits(config)
		return config
	}
	cfg := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	if err := cfg.Init(flags, helmNamespace, "secret"); err != nil {
		return nil, fmt.Errorf("prepare Helm: %w", err)
	}
	return cfg, nil
}
