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
	// volumeClass is the storage class of volumes that are made in advance. No provisioner has that name.
	volumeClass = "lab"
	// volumeFolder is the folder of the volumes on the node.
	volumeFolder = "/var/local/security-training"
	// volumeSize is the declared size. A folder of the node has no size of its own.
	volumeSize = "1Gi"
)

// serverClaim is the one claim that is made by a StatefulSet and not by the chart.
const serverClaim = "data-" + cluster.SPIREPod

// claims returns the names of the chart's claims.
func claims(topo *topology.Topology) []string {
	out := []string{serverClaim}
	for _, w := range topo.Workloads {
		if w.Kind != topology.KindOperator {
			out = append(out, w.Name+"-state")
		}
	}
	return out
}

// volumes makes the volume of every claim in advance. kind's provisioner would make them one after the other, each by a
// pod of its own, and the one of the SPIRE server, on which everything waits, came last.
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
	// The StatefulSet makes its claim at the same time as its pod. If the scheduler looks between the two, it looks at
	// the pod again only after five minutes. So the claim is made here; the StatefulSet takes a claim that exists.
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
