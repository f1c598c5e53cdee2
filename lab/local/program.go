package local

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"example.org/security-training/lab/control"
)

// runningProgram is the program file of this process, even after a new build has replaced it.
const runningProgram = "/proc/self/exe"

// longestProgram is the size limit of a program, in bytes.
const longestProgram = 1 << 30

// openProgram opens a program for reading. It does not block if there is a pipe in its place.
func openProgram(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := control.Regular(f, longestProgram); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// programID identifies the build of a program. It is Go's build ID, which ends in a digest of the contents. A program
// without one is identified by a digest of the file, which takes a hundred times as long to compute. It is "" if there
// is no program to read.
func programID(path string) string {
	f, err := openProgram(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if id, err := goBuildID(f); err == nil && id != "" {
		return id
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, longestProgram)); err != nil {
		return ""
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// goBuildID reads the note that Go's linker writes: the lengths of the name and of the text, a type, "Go" and two
// zeros, and the text.
func goBuildID(program io.ReaderAt) (string, error) {
	f, err := elf.NewFile(program)
	if err != nil {
		return "", err
	}
	section := f.Section(".note.go.buildid")
	if section == nil {
		return "", errors.New("it has no build ID")
	}
	note, err := section.Data()
	if err != nil {
		return "", err
	}
	const header = 16
	if len(note) < header || !bytes.Equal(note[12:header], []byte("Go\x00\x00")) {
		return "", errors.New("its build ID is no note of Go's")
	}
	n := f.ByteOrder.Uint32(note[4:])
	if int64(n) > int64(len(note)-header) {
		return "", fmt.Errorf("its build ID ends after %d of %d bytes", len(note)-header, n)
	}
	return string(note[header : header+n]), nil
}

// placeProgram atomically replaces the program at to by a copy of the one at from, and returns its build. It checks the
// copy, which is in the lab's own folder, so a change of from cannot come between the check and the start. A process
// that runs the old program keeps it.
func placeProgram(from, to string) (id string, err error) {
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return "", fmt.Errorf("place program: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(out.Name())
			err = fmt.Errorf("place program: %w", err)
		}
	}()
	in, err := openProgram(from)
	if err != nil {
		out.Close()
		return "", err
	}
	defer in.Close()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return "", err
	}
	if id = programID(out.Name()); id == "" {
		return "", fmt.Errorf("%s cannot be read back", out.Name())
	}
	return id, os.Rename(out.Name(), to)
}
