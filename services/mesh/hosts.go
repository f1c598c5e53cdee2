package mesh

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
)

// UnknownHost is the reason for refusing a browser's request that names another host.
const UnknownHost Reason = "unknown_host"

// AdmitHost adds a name or address under which browsers reach the ports for people.
func (n *Node) AdmitHost(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, strings.ToLower(name))
}

// forKnownHosts passes on requests that name this host. It prevents DNS rebinding: another site can make its own name
// resolve to this machine, and would then have the same origin as these pages; but the browser sends that name.
//
// Known are the names and addresses of loopback, the address of the connection, the names of the people's certificate
// (those of --listen), the workload's own name in a cluster, and what AdmitHost and Config.PeopleHosts add.
func (p *peoplePorts) forKnownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.isKnownHost(r) {
			next.ServeHTTP(w, r)
			return
		}
		p.node.TurnAway(r.RemoteAddr, audit.Entry{
			Kind: "page", Outcome: "Forbidden", Reason: string(UnknownHost), Detail: "for " + r.Host,
		})
		w.Header().Set("Connection", "close")
		httpjson.WriteError(w, httpjson.Errorf(http.StatusMisdirectedRequest, string(UnknownHost),
			"this is not the host that the request is for"))
	})
}

func (p *peoplePorts) isKnownHost(r *http.Request) bool {
	n := p.node
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "" {
		return false
	}
	if address, err := netip.ParseAddr(host); err == nil {
		if address.IsLoopback() {
			return true
		}
		local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if ok && addressOf(local).Unmap() == address.Unmap() {
			return true
		}
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	// In a cluster: service, service.namespace.svc, and the cluster's domain. A service.namespace alone may be a public
	// name.
	if n.cfg.Host == "" {
		service, rest, more := strings.Cut(host, ".")
		_, rest, _ = strings.Cut(rest, ".")
		if service == n.self.Host() && (!more || rest == "svc" || rest == "svc.cluster.local") {
			return true
		}
	}
	listen := n.cfg.PeopleListen
	if name, _, err := net.SplitHostPort(listen); err == nil {
		listen = name
	}
	n.mu.Lock()
	hosts := append([]string{strings.ToLower(listen), strings.ToLower(n.cfg.Host)}, n.hosts...)
	n.mu.Unlock()
	for _, known := range append(hosts, n.cfg.PeopleHosts...) {
		if known != "" && known == host {
			return true
		}
	}
	leaf := p.serverLeaf()
	return leaf != nil && leaf.VerifyHostname(host) == nil
}

// leafCachedFor is how long the people's certificate is cached.
const leafCachedFor = time.Second

// serverLeaf is the server certificate for people; nil if there is none.
func (p *peoplePorts) serverLeaf() *x509.Certificate {
	if p.node.cfg.PeopleTLS == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leaf == nil || time.Since(p.leafAt) > leafCachedFor {
		p.leaf, p.leafAt = nil, time.Now()
		text, err := os.ReadFile(filepath.Join(p.node.cfg.PeopleTLS, peopleChain))
		if err != nil {
			return nil
		}
		if block, _ := pem.Decode(text); block != nil {
			p.leaf, _ = x509.ParseCertificate(block.Bytes) // one that cannot be parsed has no names
		}
	}
	return p.leaf
}
