package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Check is the result of checking one precondition. Its JSON keys are a contract.
type Check struct {
	Category string `json:"category"`
	What     string `json:"what"`
	OK       bool   `json:"ok"`
	Needed   bool   `json:"needed"` // the lab does not start without it
	Found    string `json:"found"`
	Mend     string `json:"mend,omitempty"` // a command that mends it
}

// Doctor checks everything that a local lab needs, and what it can use.
func Doctor(ctx context.Context, lookup env.Lookup) []Check {
	var out []Check
	add := func(category, what string, needed Need, mend string, found string, err error) {
		c := Check{Category: category, What: what, OK: err == nil, Needed: needed == Needed, Found: found, Mend: mend}
		if err != nil {
			c.Found = err.Error()
		}
		out = append(out, c)
	}
	var err error
	if runtime.GOOS != "linux" {
		err = fmt.Errorf("%s: the local runtime is for Linux", runtime.GOOS)
	}
	add("system", "Linux", Needed, "lab up --runtime kind", runtime.GOOS+"/"+runtime.GOARCH, err)

	found, mend, err := doctorPostgres(ctx, lookup, postgresPlaces(lookup))
	add("database", "PostgreSQL server", Needed, mend, found, err)

	who, err := databaseAccount()
	add("database", "an account to run it", Needed, installPostgres, who.name, err)

	home, err := control.Home(lookup)
	if err == nil {
		err = writable(home)
	}
	add("files", "the labs' folder", Needed, control.OwnHome, home, err)
	need := RoomFor(lab.DefaultPeople, lab.DefaultDays)
	company := fmt.Sprintf("%d people and %d days", lab.DefaultPeople, lab.DefaultDays)
	enough := func(free, take uint64, err error) (string, error) {
		if err == nil && free < take {
			err = fmt.Errorf("%s, and %s are free", size(take), size(free))
		}
		return size(free), err
	}
	disk, err := thisMachine.disk(home)
	free, err := enough(disk, need.Disk, err)
	add("files", "free disk space for "+company, Needed, "df -h", free, err)
	if runtime.GOOS == "linux" {
		memory, err := thisMachine.memory()
		free, err := enough(memory, need.Memory, err)
		add("system", "free memory for "+company, Needed, "free -h", free, err)
	}

	isolation := "one uid for each workload"
	err = nil
	if os.Geteuid() != 0 {
		err = errors.New("not root: all workloads share your uid")
	}
	add("isolation", "a uid for each workload", Wanted, "sudo lab up", isolation, err)

	host, err := doctorPorts()
	add("network", "a loopback address with free ports", Needed, "ss -ltnp", host, err)

	dir, err := findSPIRE(lookup)
	if err == nil {
		dir = spireVersion(ctx, dir)
	}
	add("identity", "SPIRE", Wanted, "LAB_SPIRE_DIR=…   (the lab's own issuer serves without it)", dir, err)

	for _, tool := range []struct{ category, name, mend string }{
		{"building", "go", "https://go.dev/doc/install"},
		{"dashboard", "chromium", "sudo apt-get install -y chromium"},
		{"kind", "docker", "the local runtime serves without it"},
	} {
		path, err := exec.LookPath(tool.name)
		if err != nil {
			err = errors.New("not on PATH")
		}
		add(tool.category, tool.name, Wanted, tool.mend, path, err)
	}
	return out
}

// Need says how much a check matters.
type Need int

// A lab does not start without what is Needed. What is Wanted makes it better.
const (
	Needed Need = iota
	Wanted
)

func writable(dir string) error {
	for {
		fi, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return syscall.Access(dir, 2)
	}
}

func doctorPorts() (string, error) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return "", err
	}
	host, err := control.FreeHost(topo)
	var e *lab.Error
	if errors.As(err, &e) {
		return "", e.Why
	}
	return host, err
}

// Answers says whether something listens on addr.
func Answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}
