package control

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Provider is an OpenID Connect provider with which a lab's people can sign in, in addition to links and certificates.
// There is none if Issuer is empty.
type Provider struct {
	Issuer string `json:"issuer"` // an https address
	Client string `json:"client"` // the lab's client ID at the provider
	// Redirect is the URL to which the provider sends browsers back. If the environment has none, it is "" there, and
	// the lab's own address in the settings.
	Redirect string `json:"redirect"`
	Mark     string `json:"secret_mark,omitempty"` // identifies the client's secret without revealing it
	Secret   string `json:"-"`                     // "": the lab is a public client, which has no secret
}

// callback is the learning system's page to which a provider sends browsers back.
const callback = "/sign-in/callback"

// ProviderOf reads OIDC_ISSUER, and with it OIDC_CLIENT_ID and, optionally, OIDC_REDIRECT_URL and
// OIDC_CLIENT_SECRET_FILE.
func ProviderOf(lookup env.Lookup) (Provider, error) {
	e := env.Read(lookup)
	p := Provider{Issuer: e.Optional("OIDC_ISSUER", "")}
	if p.Issuer == "" {
		return p, nil
	}
	p.Client, p.Redirect = e.Required("OIDC_CLIENT_ID"), e.Optional("OIDC_REDIRECT_URL", "")
	if e.Optional("OIDC_CLIENT_SECRET_FILE", "") != "" {
		p.Secret = string(e.Secret("OIDC_CLIENT_SECRET_FILE"))
		p.Mark = mark("which secret of a lab's client", p.Secret)
	}
	err := e.Err()
	if u, bad := url.Parse(p.Issuer); bad != nil || u.Scheme != "https" || u.Host == "" {
		err = errors.Join(err, errors.New("OIDC_ISSUER: want an https address"))
	}
	if p.Redirect != "" && !strings.HasSuffix(p.Redirect, callback) {
		err = errors.Join(err, errors.New("OIDC_REDIRECT_URL: want the address of the pages and "+callback))
	}
	if err != nil {
		return p, &lab.Error{Code: lab.ExitUsage, What: "choose who signs people in", Why: err}
	}
	return p, nil
}

// Signs stores the provider in the settings. Of the client's secret it stores only the mark. Host must be set.
func (s *Settings) Signs(p Provider, topo *topology.Topology) {
	for _, w := range topo.OfKind(topology.KindDashboard) {
		if p.Issuer != "" && p.Redirect == "" {
			p.Redirect = "http://" + net.JoinHostPort(s.Host, strconv.Itoa(w.Web)) + callback
		}
	}
	s.Provider = p
}
