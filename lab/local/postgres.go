package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
)

// account is a user of the operating system.
type account struct {
	uid, gid int
	name     string
}

// own says whether a is the account of this process. Then files need no other owner.
func (a account) own() bool { return a.uid == os.Geteuid() }

// databaseAccount returns the account that runs PostgreSQL, which refuses to run as root.
func databaseAccount() (account, error) {
	if uid := os.Geteuid(); uid != 0 {
		u, err := user.LookupId(strconv.Itoa(uid))
		if err != nil {
			return account{}, fmt.Errorf("find the database's account: PostgreSQL needs a user name for uid %d: %w", uid, err)
		}
		return account{uid, os.Getegid(), u.Username}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("find the database's account: %w", err)
		}
		return account{uid, gid, name}, nil
	}
	return account{}, errors.New(
		"find the database's account: PostgreSQL refuses to run as root, and there is no user postgres and none called " +
			"nobody",
	)
}

// findPostgres returns the first of postgresPlaces that has the programs of a server.
func findPostgres(lookup env.Lookup) (string, error) { return serverIn(postgresPlaces(lookup)) }

// postgresPlaces are the folders on PATH, then those in which Debian installs servers, the newest first, and then the
// one into which fetch downloads.
func postgresPlaces(lookup env.Lookup) []string {
	path, _ := lookup("PATH")
	dirs := filepath.SplitList(path)
	if debian, err := filepath.Glob("/usr/lib/postgresql/*/bin"); err == nil { // the pattern is valid
		slices.SortFunc(debian, func(a, b string) int { return major(b) - major(a) })
		dirs = append(dirs, debian...)
	}
	if home, err := cache(lookup); err == nil {
		dirs = append(dirs, fetchedPrograms(home))
	}
	return dirs
}

func serverIn(dirs []string) (string, error) {
	for _, dir := range dirs {
		if executable(filepath.Join(dir, "postgres")) && executable(filepath.Join(dir, "initdb")) {
			return dir, nil
		}
	}
	return "", errors.New("no PostgreSQL server on PATH or under /usr/lib/postgresql")
}

func major(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return n
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// ident maps the account of the server and of dbkeeper to the database user postgres on the unix socket. pg_hba.conf
// calls the map keeper.
func ident(who account) string { return "keeper " + who.name + " postgres\n" }

// template returns the data folder that every lab copies. It makes it once for each PostgreSQL version and account.
func template(ctx context.Context, bin string, who account, lookup env.Lookup) (string, error) {
	home, err := cache(lookup)
	if err != nil {
		return "", err
	}
	return templateIn(ctx, home, bin, who)
}

// templateIn is template with the cache folder to use.
func templateIn(ctx context.Context, home, bin string, who account) (string, error) {
	version, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	key := sha256.Sum256(
		fmt.Appendf(
			nil,
			"%s|%s|%s|%s|%s|%d",
			version,
			bin,
			manifests.PostgresHBA(),
			manifests.PostgresSettings(),
			ident(who),
			who.uid,
		),
	)
	dir := filepath.Join(home, fmt.Sprintf("database-%x", key[:6]))
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(home, 0o711); err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	tmp, err := os.MkdirTemp(home, "making-")
	if err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := give(tmp, who); err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	cmd := exec.CommandContext(
		ctx,
		filepath.Join(bin, "initdb"),
		"-D",
		tmp,
		"-U",
		"postgres",
		"--auth-local=peer",
		"--auth-host=reject",
		"--encoding=UTF8",
		"--locale=C",
		"--no-sync",
		"--no-instructions",
	)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = credentials(who)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make database template: initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := takeBack(tmp, who); err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	for name, content := range map[string][]byte{
		"pg_hba.conf": manifests.PostgresHBA(), "pg_ident.conf": []byte(ident(who)),
	} {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o600); err != nil {
			return "", fmt.Errorf("make database template: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(tmp, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	_, err = f.Write(append([]byte("\n"), manifests.PostgresSettings()...))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("make database template: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) { // another process may have been faster
		if _, there := os.Stat(filepath.Join(dir, "PG_VERSION")); there != nil {
			return "", fmt.Errorf("make database template: %w", err)
		}
	}
	return dir, nil
}

// takeBack makes the caller the owner of a tree of the account who. It goes from the top down, because who cannot
// change anything below a folder that it does not own any more. A database has only folders, and files with one name
// each: anything else is an error.
func takeBack(dir string, who account) error {
	if who.own() {
		return nil
	}
	if err := os.Lchown(dir, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			err = takeBack(path, who)
		case fi.Mode().IsRegular() && fi.Sys().(*syscall.Stat_t).Nlink == 1:
			err = os.Lchown(path, os.Geteuid(), os.Getegid())
		default:
			err = fmt.Errorf("%s: %v, with another name or no file", path, fi.Mode())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a folder with its modes, and makes who the owner of everything. A folder changes its owner after its
// contents, because nothing may be done by path in a folder that does not belong to root any more.
func copyTree(ctx context.Context, from, to string, who account) error {
	var folders []string
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(8)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, target)
			return os.Mkdir(target, fi.Mode().Perm())
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("copy %s: %v is neither a file nor a folder", path, d.Type())
		}
		group.Go(func() error { return copyFile(path, target, fi.Mode().Perm(), who) })
		return nil
	})
	err = errors.Join(err, group.Wait())
	for _, dir := range slices.Backward(folders) {
		err = errors.Join(err, give(dir, who))
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode, who account) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return give(to, who)
}

// give makes who the owner of what is at path. Only root may be able to change the folder of path.
func give(path string, who account) error {
	if who.own() {
		return nil
	}
	return os.Lchown(path, who.uid, who.gid)
}

// makeFolder makes a folder that belongs to who.
func makeFolder(dir string, who account) error {
	return errors.Join(os.Mkdir(dir, 0o700), give(dir, who))
}

// shareFolder makes a folder of the caller whose files who can read and not replace.
func shareFolder(dir string, who account) error {
	err := os.Mkdir(dir, 0o750)
	if err == nil && !who.own() {
		err = os.Lchown(dir, os.Geteuid(), who.gid)
	}
	return err
}

// share writes a file in such a folder atomically. It belongs to the caller, and who can read it.
func share(path string, content []byte, who account) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err == nil && !who.own() {
		err = tmp.Chown(os.Geteuid(), who.gid)
	}
	err = errors.Join(err, tmp.Chmod(0o440), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}
