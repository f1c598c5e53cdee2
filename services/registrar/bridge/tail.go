package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// tail copies the file at path to out from an offset on, and continues as it grows, until ctx or out ends. It waits for
// a file that does not exist yet. A file shorter than the offset is an error, since it is another one.
func tail(ctx context.Context, path, offset string, out io.Writer) error {
	at, err := strconv.ParseInt(offset, 10, 64)
	if err != nil || at < 0 {
		return fmt.Errorf("tail %s: offset %q: want a number of bytes", path, offset)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var f *os.File
	for {
		if f == nil {
			switch f, err = os.Open(path); {
			case errors.Is(err, fs.ErrNotExist):
				f = nil
			case err != nil:
				return fmt.Errorf("tail: %w", err)
			default:
				defer f.Close()
				size, err := f.Seek(0, io.SeekEnd)
				if err != nil {
					return fmt.Errorf("tail: %w", err)
				}
				if size < at {
					return fmt.Errorf("tail %s: it has %d bytes, fewer than %d", path, size, at)
				}
				if _, err := f.Seek(at, io.SeekStart); err != nil {
					return fmt.Errorf("tail: %w", err)
				}
			}
		}
		if f != nil {
			if _, err := io.Copy(out, f); err != nil {
				return fmt.Errorf("tail %s: %w", path, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
