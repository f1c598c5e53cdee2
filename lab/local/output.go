package local

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// longestLog is the size in bytes at which a new log file is begun. The previous file is kept, older ones are deleted.
const longestLog = 16 << 20

// logFile is a process's log, in a folder of the supervisor. The process writes to a pipe: if it could replace the file
// by a link, it could make the supervisor write anywhere.
type logFile struct {
	path    string
	most    int64 // bytes after which the next file is begun
	file    *os.File
	size    int64
	midline bool  // the last byte is not the end of a line
	lost    int64 // bytes that could not be written since the last success
}

// openLog opens the log at path and appends to it, or makes it.
func openLog(path string, most int64) (*logFile, error) {
	l := &logFile{path: path, most: most}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size = f, fi.Size()
	return nil
}

// Write appends p. It never fails, so that a full disk does not stop the process that writes. It counts the bytes that
// it could not write, and writes their number before anything else.
func (l *logFile) Write(p []byte) (int, error) {
	if l.size >= l.most && !l.midline || l.size >= 2*l.most {
		l.turn()
	}
	if l.file == nil {
		_ = l.open() // opening failed before; lost counts what is missing
	}
	if l.lost > 0 && l.file != nil {
		n, err := fmt.Fprintf(l.file, "\n(%d bytes of this log could not be written)\n", l.lost)
		l.size += int64(n)
		if err == nil {
			l.lost = 0
		}
	}
	n, err := l.file.Write(p) // fails if there is no file
	if err != nil {
		l.lost += int64(len(p) - n)
	}
	l.size += int64(n)
	if n > 0 {
		l.midline = p[n-1] != '\n'
	}
	return len(p), nil
}

// turn begins the next file.
func (l *logFile) turn() {
	l.file.Close()
	if err := errors.Join(os.Rename(l.path, l.path+".1"), l.open()); err != nil {
		l.file, l.size = nil, 0
		_ = l.open() // then go on with the old file
	}
}

// drain appends everything that r gives, until its end or its deadline.
func (l *logFile) drain(r *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		_, _ = l.Write(buf[:n]) // never fails
		if err != nil {
			return
		}
	}
}
