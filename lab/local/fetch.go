package local

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
)

const (
	// repository is where the library downloads from, unless LAB_POSTGRES_REPOSITORY names a mirror.
	repository = "https://repo1.maven.org/maven2"
	// fetched is the version to download: the same major version as in the chart.
	fetched = embeddedpostgres.V17
)

// archive is the archive with PostgreSQL's programs for this machine, in a repository.
type archive struct {
	name string // as the library names it, without the extension
	url  string
	size int64 // in bytes
}

// String describes the download and its size.
func (a archive) String() string {
	return fmt.Sprintf("PostgreSQL %s, %.1f MB, from %s", fetched, float64(a.size)/1e6, a.url)
}

// safe accepts only HTTPS, or this machine. Over any other connection, others could replace the programs.
func safe(u *url.URL) error {
	if u.Scheme == "https" {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" &&
		(u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s: programs must come by https, or from this machine", u.Redacted())
}

// ask requests a file of a repository. It follows redirects only to safe addresses.
func ask(ctx context.Context, method, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err == nil {
		err = safe(req.URL)
	}
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // otherwise the length would be that of the compressed answer
	client := &http.Client{CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > 5 {
			return errors.New("it redirects too many times")
		}
		return safe(next.URL)
	}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answers %s", address, resp.Status)
	}
	return resp, nil
}

// findArchive asks the repository for the archive and its checksum. It gives up after three seconds.
func findArchive(ctx context.Context, lookup env.Lookup) (archive, error) {
	a := archive{}
	machine := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
	if runtime.GOOS != "linux" || machine == "" {
		return a, fmt.Errorf("there is no download for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		machine += "-alpine"
	}
	const stem = "embedded-postgres-binaries-linux-"
	a.name = stem + machine + "-" + string(fetched)
	a.url = fmt.Sprintf(
		"%s/io/zonky/test/postgres/%s%s/%s/%s.jar",
		env.Read(lookup).Optional("LAB_POSTGRES_REPOSITORY", repository),
		stem,
		machine,
		fetched,
		a.name,
	)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, address := range []string{a.url + ".sha256", a.url} {
		resp, err := ask(ctx, http.MethodHead, address)
		if err != nil {
			return a, fmt.Errorf("ask for PostgreSQL's programs: %w", err)
		}
		resp.Body.Close()
		a.size = resp.ContentLength
	}
	if a.size < 0 {
		return a, fmt.Errorf("ask for PostgreSQL's programs: %s does not say how long it is", a.url)
	}
	return a, nil
}

// fetchedPrograms is the folder below the cache folder into which fetch writes.
func fetchedPrograms(home string) string {
	return filepath.Join(home, "postgresql-"+string(fetched), "bin")
}

// fetch downloads a into the cache folder, tries the programs as the account who, and returns their folder. The folder
// gets its name last, so if it exists, it is complete.
func (a archive) fetch(ctx context.Context, home string, who account) (string, error) {
	if err := os.MkdirAll(home, 0o711); err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	tmp, err := os.MkdirTemp(home, "fetching-")
	if err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	defer os.RemoveAll(tmp)
	programs := filepath.Join(tmp, "programs")
	if err := errors.Join(os.Chmod(tmp, 0o711), os.Mkdir(programs, 0o755)); err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	if err := a.download(ctx, filepath.Join(tmp, "archive", a.name+".txz")); err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	// Start unpacks the archive that is there. Without it, the library would download one, and verify that only if the
	// repository happens to have a checksum. The library can also start a server, but with a password, and not as root;
	// the supervisor starts the server here. So Start must fail where it would make the data folder: os.RemoveAll
	// refuses a path that ends in a dot.
	server := embeddedpostgres.NewDatabase(
		embeddedpostgres.DefaultConfig().Version(fetched).BinaryRepositoryURL("file:///dev/null").Port(0).
			CachePath(filepath.Join(tmp, "archive")).RuntimePath(filepath.Join(tmp, "run")).BinariesPath(programs).
			DataPath(filepath.Join(tmp, "data") + "/.").Logger(io.Discard),
	)
	err = server.Start()
	if ctx.Err() != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", ctx.Err())
	}
	for _, program := range []string{"postgres", "initdb"} {
		if !executable(filepath.Join(programs, "bin", program)) {
			return "", fmt.Errorf("download PostgreSQL: %s: %w", a.url, err)
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "bin", "postgres"), "--version")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"LC_ALL=C"}, credentials(who)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download PostgreSQL: try it: %w\n%s", err, bytes.TrimSpace(out))
	}
	bin := fetchedPrograms(home)
	if err := os.Rename(programs, filepath.Dir(bin)); err != nil &&
		!executable(filepath.Join(bin, "postgres")) { // another process may have been faster
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	return bin, nil
}

// download writes the compressed tar of the archive to path, if the archive has the checksum that its repository gives.
func (a archive) download(ctx context.Context, path string) error {
	sum, err := read(ctx, a.url+".sha256", 1<<10)
	if err != nil {
		return err
	}
	jar, err := read(ctx, a.url, a.size)
	if err != nil {
		return err
	}
	want, _, _ := strings.Cut(strings.TrimSpace(string(sum)), " ")
	if got := fmt.Sprintf("%x", sha256.Sum256(jar)); got != want {
		return fmt.Errorf("%s has the checksum %s, and its repository says %.64q", a.url, got, want)
	}
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return fmt.Errorf("%s: %w", a.url, err)
	}
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return fmt.Errorf("%s: there is no archive in it", a.url)
	}
	from, err := z.File[i].Open()
	if err != nil {
		return fmt.Errorf("%s: %w", a.url, err)
	}
	defer from.Close()
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// read reads a file of a repository, of at most most bytes.
func read(ctx context.Context, address string, most int64) ([]byte, error) {
	resp, err := ask(ctx, http.MethodGet, address)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s is longer than %d bytes", address, most)
	}
	return b, nil
}

// ensurePostgres finds PostgreSQL's programs in one of dirs, or downloads them below the folder home. It calls say
// before it downloads. Its error names every way to provide them.
func ensurePostgres(
	ctx context.Context,
	lookup env.Lookup,
	dirs []string,
	home string,
	who account,
	say func(format string, args ...any),
) (string, error) {
	bin, missing := serverIn(dirs)
	if missing == nil {
		return bin, nil
	}
	a, err := findArchive(ctx, lookup)
	if err == nil {
		say("to download: %s", a)
		if bin, err = a.fetch(ctx, home, who); err == nil {
			return bin, nil
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return "", &lab.Error{
		Code: lab.ExitPrecondition,
		What: "find PostgreSQL",
		Why:  fmt.Errorf("%w; nor can it be downloaded: %w", missing, err),
		Try: installPostgres + "   (or put its programs on PATH, or name a mirror of the download: " +
			"LAB_POSTGRES_REPOSITORY=" + repository + ")",
	}
}

// doctorPostgres says what ensurePostgres would do with dirs and, if it would fail, how to mend that.
func doctorPostgres(ctx context.Context, lookup env.Lookup, dirs []string) (found, mend string, err error) {
	bin, err := serverIn(dirs)
	if err == nil {
		if v, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output(); err == nil {
			return strings.TrimSpace(string(v)) + " in " + bin, "", nil
		}
		return bin, "", nil
	}
	a, unreachable := findArchive(ctx, lookup)
	if unreachable == nil {
		return "none here; lab up would download " + a.String(), "", nil
	}
	return "", installPostgres + "   (or LAB_POSTGRES_REPOSITORY=… for a mirror of the download)", fmt.Errorf(
		"%w; nor can it be downloaded: %w",
		err,
		unreachable,
	)
}

const installPostgres = "sudo apt-get install -y postgresql"
