package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"example.org/security-training/services/topology"
)

// environment returns all variables of a workload. It inherits none.
func (s *Supervisor) environment(w topology.Workload) []string {
	f, keys := s.folder.Of(w.Name), s.folder.Keys(w.Name)
	e := []string{
		mark + "=" + string(s.folder.StateDir),
		"WORKLOAD=" + w.Name,
		"SPIFFE_ENDPOINT_SOCKET=unix://" + s.folder.api(),
		"TRUST_DOMAIN=" + s.topo.TrustDomain,
		"TOPOLOGY_FILE=" + s.folder.Topology(),
		"MESH_HOST=" + s.settings.Host,
		"AUDIT_FILE=" + f.Path("audit"),
		"DATA_DIR=" + f.Path("state"),
	}
	if s.settings.Pprof {
		e = append(e, "PPROF_SOCKET="+s.folder.WorkloadPprof(w.Name))
	}
	if len(w.Database) > 0 {
		e = append(e, "DB_HOST="+s.settings.Host, "DB_PORT="+strconv.Itoa(s.settings.DBPort), "DB_NAME=security_training")
	}
	if w.WebTLS != 0 {
		e = append(e, "PEOPLE_TLS_DIR="+s.folder.peopleTLS(w.Name), "PEOPLE_LISTEN="+s.settings.Spec.Listen)
	}
	if w.Source != "" {
		e = append(e, "SOURCE_SECRET_FILE="+keys.Path("source.secret"))
	}
	switch w.Kind {
	case topology.KindDatabase:
		e = append(
			e,
			"PGHOST="+s.folder.postgres().Path("run"),
			"DB_PORT="+strconv.Itoa(s.settings.DBPort),
			"DB_NAME=security_training",
			"TLS_DIR="+s.folder.postgres().Path("tls"),
		)
	case topology.KindGateway:
		e = append(
			e,
			"LLM_BACKEND="+s.settings.Backend,
			"GEMINI_MODEL="+s.settings.Model,
			"GEMINI_API_KEY_FILE="+keys.Path("gemini.key"),
		)
	case topology.KindDashboard:
		if s.settings.DevDir != "" {
			e = append(e, "LMS_DEV_DIR="+s.settings.DevDir)
		}
		p := s.settings.Provider
		if p.Issuer != "" {
			e = append(e, "OIDC_ISSUER="+p.Issuer, "OIDC_CLIENT_ID="+p.Client, "OIDC_REDIRECT_URL="+p.Redirect)
		}
		if p.Mark != "" {
			e = append(e, "OIDC_CLIENT_SECRET_FILE="+keys.Path("oidc.secret"))
		}
	}
	return e
}

// account returns the account for row i: a uid of its own if the lab has uids, and for the database's keeper that of
// the database.
func (s *Supervisor) account(i int, w topology.Workload, database account) account {
	if w.Kind == topology.KindDatabase {
		return database
	}
	return workloadAccount(s.settings, i)
}

func workloadAccount(st settings, i int) account {
	if st.UIDs == 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}
	}
	return account{uid: st.UIDs + i, gid: st.UIDs + i}
}

// preparePeople gives the workload that serves people by HTTPS a new certificate. It happens at each start of the
// supervisor.
func (s *Supervisor) preparePeople(w topology.Workload, who account) error {
	files, err := s.control.PeopleTLS(s.settings.Host, s.settings.Spec.Listen)
	if err != nil {
		return err
	}
	dir := s.folder.peopleTLS(w.Name)
	if err = shareFolder(dir, who); errors.Is(err, os.ErrExist) {
		err = nil
	}
	for name, content := range files {
		err = errors.Join(err, share(filepath.Join(dir, name), content, who))
	}
	if err != nil {
		return fmt.Errorf("certify %s to people: %w", w.Name, err)
	}
	return nil
}
