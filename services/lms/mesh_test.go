package lms

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"

	"example.org/security-training/services/mesh/meshtest"
)

// TestServesTheRoutesThatTopologyLists joins the lab's own topology: Serve fails unless listing and handlers agree.
func TestServesTheRoutesThatTopologyLists(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := newSchool(t)
	n := meshtest.Start(t, text)
	node := n.Join(t, "lms")
	s.Register(node)
	n.Serve(t, node)

	teacher, collector := n.Join(t, "instructor"), n.Join(t, "git-collector")
	resp, err := teacher.Peer("lms").Post(t.Context(), "/v1/links", "application/json", []byte(`{"role":"instructor"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("the instructor's link: %d", resp.StatusCode)
	}
	if chain := s.chain(); len(chain) != 1 || chain[0].Detail == "" {
		t.Errorf("audit %+v", chain)
	}
	if resp, err := collector.Peer("lms").Post(t.Context(), "/v1/links", "application/json", []byte(`{"role":"instructor"}`)); err == nil {
		resp.Body.Close()
		t.Errorf("a collector's link: %d", resp.StatusCode)
	}
	// The people's port is plain HTTP on loopback; a connection shows that it is there, the pages have tests of their own.
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(n.Host, strconv.Itoa(node.Self().Web)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
