package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/audit"
)

var errFull = errors.New("no space left on device")

// disk takes some bytes and is full then, until there is room again.
type disk struct {
	mu   sync.Mutex
	text bytes.Buffer
	room int // bytes that it takes; negative: any number
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room < 0 {
		return d.text.Write(b)
	}
	n, err := d.text.Write(b[:min(d.room, len(b))])
	d.room -= n
	if err == nil && n < len(b) {
		err = errFull
	}
	return n, err
}

func (d *disk) Close() error { return nil }

func (d *disk) holds(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

func (d *disk) chain(t *testing.T) []audit.Entry {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := audit.Verify(bytes.NewReader(d.text.Bytes()), writer, nil); err != nil {
		t.Fatal(err)
	}
	entries, err := audit.Read(bytes.NewReader(d.text.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestChainIsWholeAgainWhenAFullDiskHasRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 100} // less than a line
		l := audit.New(d, writer)
		for i := range 10 {
			l.Write(audit.Entry{Kind: "decision", Event: fmt.Sprint(i)})
		}
		<-time.After(time.Hour)
		if err := l.Err(); !errors.Is(err, errFull) {
			t.Errorf("while the disk is full: %v", err)
		}
		d.holds(-1)
		<-time.After(time.Second)
		if err := l.Err(); err != nil {
			t.Errorf("a second after the disk had room: %v", err)
		}
		l.Write(audit.Entry{Kind: "decision", Event: "10"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(d.chain(t)); n != 11 {
			t.Errorf("%d entries, want all 11", n)
		}
	})
}

func TestEntriesThatFindNoRoomAreCountedAndTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, each = 20_000, 4 << 10
		d := &disk{}
		l := audit.New(d, writer)
		for range many {
			l.Write(audit.Entry{Kind: "decision", Detail: strings.Repeat("x", each)})
			synctest.Wait()
		}
		d.holds(-1)
		<-time.After(time.Second)
		if err := l.Err(); err != nil {
			t.Errorf("a second after the disk had room: %v", err)
		}
		l.Write(audit.Entry{Kind: "decision", Detail: "after"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		entries := d.chain(t)
		kept := len(entries) - 2
		if kept < 1 || kept > many/2 {
			t.Errorf("%d of %d entries were kept in memory, want a bound", kept, many)
		}
		said := entries[kept]
		if said.Kind != "recovered" || !strings.HasPrefix(said.Detail, fmt.Sprintf("%d entries since ", many-kept)) ||
			entries[kept+1].Detail != "after" {
			t.Errorf("after %d of %d entries the chain goes on with %s %.80s, want how many are lost", kept, many, said.Kind,
				said.Detail)
		}
	})
}

func TestNothingFollowsWhatCouldNotBeWrittenBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 100}
		l := audit.New(d, writer)
		l.Write(audit.Entry{Kind: "decision"})
		synctest.Wait()
		l.Write(audit.Entry{Kind: "stop"}) // waits for its turn, which never comes
		if err := l.Close(); !errors.Is(err, errFull) {
			t.Errorf("closed with %v", err)
		}
		if n := d.text.Len(); n != 100 {
			t.Errorf("%d bytes were written, want the hundred that there was room for", n)
		}
	})
}
