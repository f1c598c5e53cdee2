package local

import (
	"errors"
	"os"
	"path/filepath"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/env"
)

// folder is a lab's private folder, with the files that only local processes have.
type folder struct{ control.StateDir }

func (f folder) api() string                      { return f.Path("api.sock") }
func (f folder) cas() string                      { return f.Path("ca.pem") }
func (f folder) processes() string                { return f.Path("processes.json") }
func (f folder) binary(name string) string        { return f.Path("bin", name) }
func (f folder) postgres() control.StateDir       { return control.StateDir(f.Path("pg")) }
func (f folder) peopleTLS(workload string) string { return f.Keys(workload).Path("people-tls") }

// settings are what a supervisor of local processes needs to know.
type settings struct {
	control.Settings
	UIDs      int    `json:"uids"`            // the first uid of this lab's workloads; 0 if all have the caller's
	Postgres  string `json:"postgres"`        // the folder of PostgreSQL's programs
	SPIRE     string `json:"spire,omitempty"` // the folder of SPIRE's programs
	SPIREPort int    `json:"spire_port,omitempty"`
}

// cache is the folder that keeps the database's template and downloaded programs between labs. They are executed, so
// cache refuses a folder that other users can change.
func cache(lookup env.Lookup) (string, error) {
	path, err := cachePath(lookup)
	if err != nil {
		return "", err
	}
	private, err := control.Private(path)
	if err != nil {
		return "", &lab.Error{
			Code: lab.ExitPrecondition,
			What: "use the cache folder " + path,
			Why:  err,
			Try:  "XDG_CACHE_HOME=$HOME/.cache lab up",
		}
	}
	return private, nil
}

func cachePath(lookup env.Lookup) (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/security-training", nil
	}
	if v, ok := lookup("XDG_CACHE_HOME"); ok && v != "" {
		return filepath.Join(v, "security-training"), nil
	}
	home, ok := lookup("HOME")
	if !ok || home == "" {
		return "", &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the cache folder",
			Why:  errors.New("neither XDG_CACHE_HOME nor HOME is set"),
			Try:  "HOME=… lab up",
		}
	}
	return filepath.Join(home, ".cache", "security-training"), nil
}
