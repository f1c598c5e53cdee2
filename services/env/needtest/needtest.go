// Package needtest checks what a test needs of its machine. If that is missing, the test is skipped with the reason, or
// fails if LAB_REQUIRE lists the reason: so a CI with a Docker engine does not lose the tests that use it unnoticed.
//
// Every conditional skip of the repository uses this package. Its message begins with the reason in brackets, by which
// lab/cmd/tally counts skips.
package needtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/env"
)

// Reason is a word of LAB_REQUIRE: what a test needs.
type Reason string

// What tests need.
const (
	Docker        Reason = "docker"        // an engine that answers
	Image         Reason = "image"         // a container's image, on the engine already
	Kind          Reason = "kind"          // the lab under test is on Kubernetes
	Local         Reason = "local"         // the lab under test is of local processes
	SPIRE         Reason = "spire"         // SPIRE attests and issues in the lab under test
	Chromium      Reason = "chromium"      // a browser
	NPM           Reason = "npm"           // what `make web-checks` installs
	NSS           Reason = "nss"           // certutil and pk12util
	Policies      Reason = "policies"      // the browser's policies may be written
	XZ            Reason = "xz"            // the program
	Memory        Reason = "memory"        // the memory of another process may be read
	PodNetwork    Reason = "podnetwork"    // the network of a pod may be entered
	NetworkPolicy Reason = "networkpolicy" // the cluster enforces NetworkPolicies
	DevFull       Reason = "devfull"       // there is a /dev/full
	Team          Reason = "team"          // a manager with five people
	Root          Reason = "root"          // the tests run as root, where each workload has a uid of its own
	Shells        Reason = "shells"        // a shell other than sh, to complete commands in
	Delve         Reason = "delve"         // dlv
	Release       Reason = "release"       // what tools/release names, in the module cache or to be had
	Time          Reason = "time"          // no -short: the test takes minutes
	PageCache     Reason = "pagecache"     // the kernel tells which pages of a file are not on the disk yet
)

var reasons = map[Reason]bool{
	Docker: true, Image: true, Kind: true, Local: true, SPIRE: true, Chromium: true, NPM: true, NSS: true, Policies: true,
	XZ: true, Memory: true,
	PodNetwork: true, NetworkPolicy: true, DevFull: true, Team: true, Root: true, Time: true,
	Shells: true, Delve: true, Release: true, PageCache: true,
}

// Required reads LAB_REQUIRE: reasons separated by commas. An unknown reason is an error.
func Required(lookup env.Lookup) (map[Reason]bool, error) {
	text, _ := lookup("LAB_REQUIRE")
	out := map[Reason]bool{}
	for word := range strings.SplitSeq(text, ",") {
		r := Reason(strings.TrimSpace(word))
		switch {
		case r == "":
		case !reasons[r]:
			return nil, fmt.Errorf("read LAB_REQUIRE: %q is none of %v", r, slices.Sorted(maps.Keys(reasons)))
		default:
			out[r] = true
		}
	}
	return out, nil
}

// Lacks ends t because the machine lacks something: it is skipped, or fails if LAB_REQUIRE lists the reason.
func Lacks(t testing.TB, r Reason, format string, args ...any) {
	t.Helper()
	lacks(t, env.Process, r, fmt.Sprintf(format, args...))
}

// ender is the part of testing.TB that ends a test.
type ender interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

func lacks(t ender, lookup env.Lookup, r Reason, why string) {
	t.Helper()
	required, err := Required(lookup)
	switch {
	case err != nil:
		t.Fatalf("%v", err)
	case !reasons[r]:
		t.Fatalf("skip for the reason %q, which LAB_REQUIRE does not know", r)
	case required[r]:
		t.Fatalf("[%s] %s: LAB_REQUIRE does not let this be skipped", r, why)
	default:
		t.Skipf("[%s] %s", r, why)
	}
}

// Unhurried requires a run without -short; what says why the test takes long.
func Unhurried(t testing.TB, what string) {
	t.Helper()
	if testing.Short() {
		Lacks(t, Time, "left out by -short: %s", what)
	}
}

// Browser is the path of a Chromium.
func Browser(t testing.TB) string {
	t.Helper()
	return program(t, Chromium, "sudo apt-get install -y chromium", "chromium", "chromium-browser", "google-chrome")
}

// Certutil demands NSS's tools, which give a browser a certificate.
func Certutil(t testing.TB) {
	t.Helper()
	for _, name := range []string{"certutil", "pk12util"} {
		program(t, NSS, "sudo apt-get install -y libnss3-tools", name)
	}
}

// Archiver is the path of xz.
func Archiver(t testing.TB) string {
	t.Helper()
	return program(t, XZ, "sudo apt-get install -y xz-utils", "xz")
}

// Shell is the path of a shell.
func Shell(t testing.TB, name string) string {
	t.Helper()
	return program(t, Shells, "sudo apt-get install -y "+name, name)
}

func program(t testing.TB, r Reason, mend string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Lacks(t, r, "%s is not on PATH: %s", names[0], mend)
	return ""
}

// WebCheck is the content of a file below tools/web/node_modules, which is not shipped; root is the way to the
// checkout's.
func WebCheck(t testing.TB, root, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(root + "/tools/web/node_modules/" + path)
	if err != nil {
		Lacks(t, NPM, "%s is not installed: make web-checks", path)
	}
	return text
}

// Engine demands a Docker engine that answers within two seconds.
func Engine(t testing.TB) {
	t.Helper()
	if out, err := docker(t.Context(), "version", "--format", "{{.Server.Version}}"); err != nil {
		Lacks(t, Docker, "no Docker engine answers: %v %s", err, out)
	}
}

// LocalImage is the first of names that is on the Docker engine. Nothing is pulled.
func LocalImage(t testing.TB, names ...string) string {
	t.Helper()
	Engine(t)
	for _, name := range names {
		if _, err := docker(t.Context(), "image", "inspect", "--format", "{{.Id}}", name); err == nil {
			return name
		}
	}
	Lacks(t, Image, "%s is not on the Docker engine: docker pull %s", strings.Join(names, " or "), names[0])
	return ""
}

func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// PrivateDir makes a folder that other users can enter and not change, which the system's folder of temporary files is
// not. It is removed when t ends.
func PrivateDir(t testing.TB) string {
	t.Helper()
	parent := "/var/cache" // it is root's, and the uids of a lab's workloads can enter it
	if os.Geteuid() != 0 {
		var err error
		if parent, err = os.UserHomeDir(); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp(parent, "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}
