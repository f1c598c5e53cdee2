package kind

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kind/pkg/cluster/nodes"

	"example.org/security-training/lab/cluster"
	"example.org/security-training/services/topology"
)

const (
	// volumeClass is the storage class of the volumes that are made beforehand; there is no provisioner of that name.
	volumeClass = "lab"
	// volumeFolder is where they are on the node.
	volumeFolder = "/var/local/security-training"
	// volumeSize is what a volume claims to be; a folder of the node has no size of its own.
	volumeSize = "1Gi"
)

// serverClaim is the one claim that a StatefulSet makes, rather than the chart.
const serverClaim = "data-" + cluster.SPIREPod

// claims are the chart's, by name.
func claims(topo *topology.Topology) []string {
	out := []string{serverClaim}
	for _, w := range topo.Workloads {
		if w.Kind != topology.KindOperator {
			out = append(out, w.Name+"-state")
		}
	}
	return out
}

// volumes makes the volume of every claim before it is claimed. kind's provisioner makes them one after the other, each
// by a pod of its own, and the SPIRE server, for whom everybody waits, came last.
func volumes(
	ctx context.Context,
	client kubernetes.Interface,
	node nodes.Node,
	namespace string,
	names []string,
) error {
	made := "umask 0; mkdir -p " + volumeFolder
	for _, n := range names {
		made += " " + volumeFolder + "/" + n
	}
	if err := node.CommandContext(ctx, "sh", "-c", made).Run(); err != nil {
		return fmt.Errorf("make volumes: %w", err)
	}
	for _, n := range names {
		kind := v1.HostPathDirectory
		volume := &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: strings.Join([]string{namespace, n}, "-")},
			Spec: v1.PersistentVolumeSpec{
				StorageClassName: volumeClass, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
				Capacity:                      v1.ResourceList{v1.ResourceStorage: resource.MustParse(volumeSize)},
				PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimRetain,
				PersistentVolumeSource: v1.PersistentVolumeSource{
					HostPath: &v1.HostPathVolumeSource{Path: volumeFolder + "/" + n, Type: &kind},
				},
				ClaimRef: &v1.ObjectReference{
					APIVersion: "v1",
					Kind:       "PersistentVolumeClaim",
					Namespace:  namespace,
					Name:       n,
				},
			},
		}
		if _, err := client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil &&
			!apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make volume %s: %w", n, err)
		}
	}
	// A StatefulSet makes its claim in the same moment as its pod. The scheduler may look between the two, and looks at
	// that pod again only when five minutes are over. A claim that is there is taken.
	class := volumeClass
	claim := &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: serverClaim},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(volumeSize)},
			},
		},
	}
	if _, err := client.CoreV1().PersistentVolumeClaims(namespace).Create(
		ctx, claim, metav1.CreateOptions{},
	); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make claim %s: %w", serverClaim, err)
	}
	return nil
}
