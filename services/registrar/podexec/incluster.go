package podexec

import (
	"context"
	"net"

	"k8s.io/client-go/rest"

	"example.org/security-training/services/registrar"
)

// InCluster dials the SPIRE server at s with the service account of the calling pod.
func InCluster(s registrar.Server) registrar.Dial {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, err
		}
		return Dial(config, s.Namespace, s.Pod, s.Container, s.Command...)(ctx, addr)
	}
}
