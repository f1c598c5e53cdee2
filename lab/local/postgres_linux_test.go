package local

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// programs makes a folder that looks as if it had a server's programs.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(
			filepath.Join(dir, name), []byte("#!/bin/sh\necho a server of the test\n"), 0o755,
		); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fakeRepository serves one archive as Maven's repository does, and records the requests.
type fakeRepository struct {
	*httptest.Server
	jar, sum []byte // without sum there is no checksum
	promised bool   // the checksum is listed, but cannot be downloaded

	mu    sync.Mutex
	asked []string
}

func (f *fakeRepository) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	body := f.jar
	if strings.HasSuffix(r.URL.Path, ".sha256") {
		body = f.sum
	}
	if f.promised && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".sha256") {
		body = nil
	}
	if body == nil || !strings.Contains(r.URL.Path, string(fetched)) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

// gets counts the downloads.
func (f *fakeRepository) gets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, a := range f.asked {
		if strings.HasPrefix(a, "GET ") {
			n++
		}
	}
	return n
}

func repositoryOf(t *testing.T, jar []byte) *fakeRepository {
	t.Helper()
	f := &fakeRepository{jar: jar, sum: fmt.Appendf(nil, "%x", sha256.Sum256(jar))}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRepository) lookup() env.Lookup {
	return env.Map(map[string]string{"LAB_POSTGRES_REPOSITORY": f.URL})
}

// packed makes an archive as the library expects it, from this system's server: a zip with a compressed tar of bin and
// lib.
func packed(t *testing.T) []byte {
	t.Helper()
	xz := needtest.Archiver(t)
	bin, err := findPostgres(env.Process)
	if err != nil {
		t.Fatal(err) // every other test of the lab needs it too
	}
	real, err := filepath.EvalSymlinks(filepath.Join(bin, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	bin = filepath.Dir(real)
	return jarOf(
		t,
		xz,
		filepath.Dir(bin),
		"bin/postgres",
		"bin/initdb",
		"bin/pg_ctl",
		"lib/plpgsql.so",
		"lib/dict_snowball.so",
	)
}

func jarOf(t *testing.T, xz, dir string, names ...string) []byte {
	t.Helper()
	tar := exec.CommandContext(t.Context(), "tar", append([]string{"-C", dir, "-c"}, names...)...)
	pack := exec.CommandContext(t.Context(), xz, "-0", "-T1", "--check=crc32")
	var out, errs, tarErrs bytes.Buffer // one buffer each, because both run at the same time
	var err error
	if pack.Stdin, err = tar.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	pack.Stdout, pack.Stderr, tar.Stderr = &out, &errs, &tarErrs
	if err := errors.Join(pack.Start(), tar.Run(), pack.Wait()); err != nil {
		t.Fatalf("pack %s: %v\n%s", dir, err, errs.String()+tarErrs.String())
	}
	return zipped(t, out.Bytes())
}

func zipped(t *testing.T, txz []byte) []byte {
	t.Helper()
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres-linux-x86_64.txz")
	if err == nil {
		_, err = w.Write(txz)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// home makes a cache folder that another account can enter.
func home(t *testing.T) string {
	t.Helper()
	return needtest.PrivateDir(t)
}

func databaseAccountOf(t *testing.T) account {
	t.Helper()
	who, err := databaseAccount()
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func silent(string, ...any) {}

func TestAServerThatIsThereIsTakenAndNothingIsAsked(t *testing.T) {
	repository := repositoryOf(t, []byte("an archive"))
	there := programs(t)
	got, err := ensurePostgres(
		t.Context(),
		repository.lookup(),
		[]string{t.TempDir(), there, programs(t)},
		t.TempDir(),
		account{uid: os.Geteuid()},
		silent,
	)
	if err != nil || got != there {
		t.Errorf("found %s, %v, want the first that has a server, %s", got, err, there)
	}
	if len(repository.asked) > 0 {
		t.Errorf("the repository was asked %v", repository.asked)
	}
	found, _, err := doctorPostgres(t.Context(), repository.lookup(), []string{there})
	if err != nil || found != "a server of the test in "+there {
		t.Errorf("doctor says %q, %v", found, err)
	}
}

func TestWhereThereIsNoServerItIsDownloadedAndMakesADatabase(t *testing.T) {
	jar := packed(t)
	repository := repositoryOf(t, jar)
	cache, who := home(t), databaseAccountOf(t)
	var said strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }

	found, _, err := doctorPostgres(t.Context(), repository.lookup(), nil)
	want := fmt.Sprintf("PostgreSQL %s, %.1f MB, from %s/", fetched, float64(len(jar))/1e6, repository.URL)
	if err != nil || !strings.HasPrefix(found, "none here; lab up would download "+want) {
		t.Errorf("doctor says %q, %v, want %q", found, err, want)
	}
	if n := repository.gets(); n > 0 {
		t.Errorf("doctor downloaded %d files", n)
	}

	bin, err := ensurePostgres(t.Context(), repository.lookup(), []string{fetchedPrograms(cache)}, cache, who, say)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(said.String(), "to download: "+want) {
		t.Errorf("said %q, want %q", said.String(), want)
	}
	names, err := os.ReadDir(cache)
	if err != nil || len(names) != 1 {
		t.Errorf("left in the cache: %v, %v; want the programs alone", names, err)
	}
	if _, err := templateIn(t.Context(), cache, bin, who); err != nil {
		t.Fatalf("the downloaded server makes no database: %v", err)
	}

	before := repository.gets()
	again, err := ensurePostgres(t.Context(), repository.lookup(), []string{fetchedPrograms(cache)}, cache, who, say)
	if err != nil || again != bin || repository.gets() != before {
		t.Errorf(
			"the second time: %s, %v, and %d more downloads; want %s and none",
			again,
			err,
			repository.gets()-before,
			bin,
		)
	}
}

// The library would make a data folder and start a server with a password. The download must stop before that.
func TestADownloadRunsNothingButTheVersion(t *testing.T) {
	xz, from, cache := needtest.Archiver(t), t.TempDir(), home(t)
	ran := filepath.Join(t.TempDir(), "ran")
	if err := os.Mkdir(filepath.Join(from, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"postgres": "echo $* >> " + ran, "initdb": "echo initdb >> " + ran, "pg_ctl": "echo pg_ctl >> " + ran,
	} {
		if err := os.WriteFile(filepath.Join(from, "bin", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	repository := repositoryOf(t, jarOf(t, xz, from, "bin"))
	if _, err := ensurePostgres(
		t.Context(), repository.lookup(), nil, cache, account{uid: os.Geteuid()}, silent,
	); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(ran); err != nil || string(b) != "--version\n" {
		t.Errorf("what ran: %q, %v", b, err)
	}
}

func TestADownloadThatIsNotWholeLeavesNothing(t *testing.T) {
	good := zipped(t, []byte("no archive at all"))
	wrong := repositoryOf(t, good)
	wrong.sum = fmt.Appendf(nil, "%x", sha256.Sum256([]byte("another")))
	unpackable := repositoryOf(t, good)
	unsigned := repositoryOf(t, good)
	unsigned.sum = nil
	promised := repositoryOf(t, packed(t))
	promised.promised = true
	gone := repositoryOf(t, good)
	gone.Close()
	for name, c := range map[string]struct {
		f    *fakeRepository
		want string
		gets int
	}{
		"another checksum":    {wrong, "its repository says", 2},
		"no checksum":         {unsigned, ".sha256 answers 404", 0},
		"a checksum promised": {promised, ".sha256 answers 404", 1},
		"no archive in it":    {unpackable, "unable to extract", 2},
		"no repository":       {gone, "connection refused", 0},
	} {
		cache := home(t)
		_, err := ensurePostgres(t.Context(), c.f.lookup(), []string{t.TempDir()}, cache, account{uid: os.Geteuid()}, silent)
		var e *lab.Error
		if !errors.As(err, &e) || e.Code != lab.ExitPrecondition {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range []string{
			c.want, "on PATH", "/usr/lib/postgresql", "apt-get install", "LAB_POSTGRES_REPOSITORY",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not name %q", name, err, want)
			}
		}
		if n := c.f.gets(); n != c.gets {
			t.Errorf("%s: %d downloads, want %d", name, n, c.gets)
		}
		if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	if _, mend, err := doctorPostgres(t.Context(), gone.lookup(), nil); err == nil ||
		!strings.Contains(mend, "LAB_POSTGRES_REPOSITORY") {
		t.Errorf("doctor: %v, mended by %q", err, mend)
	}
}

// slowRepository answers HEAD, and delays a download until the test ends.
type slowRepository struct {
	begun chan struct{}
	done  <-chan struct{}
}

func (s slowRepository) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if w.Header().Set("Content-Length", "1"); r.Method == http.MethodHead {
		return
	}
	close(s.begun)
	<-s.done
}

func TestADownloadEndsWhenItIsInterrupted(t *testing.T) {
	done := make(chan struct{})
	slow := slowRepository{make(chan struct{}), done}
	server := httptest.NewServer(slow)
	defer server.Close()
	defer close(done)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-slow.begun; cancel() }()
	cache := home(t)
	_, err := ensurePostgres(
		ctx,
		env.Map(map[string]string{"LAB_POSTGRES_REPOSITORY": server.URL}),
		nil,
		cache,
		account{uid: os.Geteuid()},
		silent,
	)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was interrupted", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestProgramsComeByHTTPSOrFromThisMachineAlone(t *testing.T) {
	astray := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/elsewhere", http.StatusFound))
	defer astray.Close()
	for _, repository := range []string{
		"http://mirror.example.net/maven2", "http://192.0.2.1", "ftp://localhost/maven2", "file:///maven2",
		"mirror.example.net", astray.URL,
	} {
		_, err := ensurePostgres(
			t.Context(),
			env.Map(map[string]string{"LAB_POSTGRES_REPOSITORY": repository}),
			nil,
			home(t),
			account{uid: os.Geteuid()},
			silent,
		)
		if err == nil || !strings.Contains(err.Error(), "programs must come by https, or from this machine") {
			t.Errorf("%s: %v", repository, err)
		}
	}
	for _, repository := range []string{
		"https://mirror.example.net", "http://127.0.0.1:8080/m", "http://[::1]/m", "http://localhost:80",
	} {
		if u, err := url.Parse(repository); err != nil || safe(u) != nil {
			t.Errorf("%s: %v, %v", repository, err, safe(u))
		}
	}
}

// TestADatabaseHasTheChartsSettingsAndOneAccountOfItsOwn reads a fresh data folder.
func TestADatabaseHasTheChartsSettingsAndOneAccountOfItsOwn(t *testing.T) {
	bin, err := findPostgres(env.Process)
	if err != nil {
		t.Fatal(err)
	}
	who := databaseAccountOf(t)
	dir, err := templateIn(t.Context(), home(t), bin, who)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := read("pg_hba.conf"); got != string(manifests.PostgresHBA()) {
		t.Errorf("pg_hba.conf is not the chart's:\n%s", got)
	}
	if got := read("postgresql.conf"); !strings.HasSuffix(got, "\n"+string(manifests.PostgresSettings())) {
		t.Errorf("postgresql.conf does not end as the chart's:\n%s", got)
	}
	if got, want := read("pg_ident.conf"), "keeper "+who.name+" postgres\n"; got != want {
		t.Errorf("pg_ident.conf is %q, want %q", got, want)
	}
}
