package lms

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh/meshtest"
)

func TestWhatIsNoTextIsTheCallersFaultOnEveryRoute(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := newFixture(t)
	n := meshtest.Start(t, text)
	node := n.Join(t, "lms")
	s.Register(node)
	n.Serve(t, node)
	n.RefusesWhatIsNoText(t, "lms", nil)
}

func TestWhatIsNoTextIsTheBrowsersFaultOnEveryPage(t *testing.T) {
	s := newFixture(t)
	people := map[string]*browser{"a stranger": s.browser(), "mira": s.as("mira.keller"), "admin": s.as("admin")}
	for _, p := range s.LMS.routes() {
		method, path, _ := strings.Cut(p.Pattern, " ")
		path = strings.ReplaceAll(path, "{$}", "")
		for who, b := range people {
			for _, bad := range []string{"a%00b", "%ff"} {
				targets := []string{pathOf(path, "1") + "?event=" + bad + "&number=" + bad, pathOf(path, "1") + "?x=%zz"}
				if strings.Contains(path, "{") {
					targets = append(targets, pathOf(path, bad))
				}
				for _, target := range targets {
					var got shown
					if method == http.MethodGet {
						got = b.get(target)
					} else {
						got = b.post(target, url.Values{"token": {"x"}})
					}
					if got.status != 400 {
						t.Errorf("%s %s by %s: %d, want 400", method, target, who, got.status)
					}
				}
				if method == http.MethodPost && p.Access == site.Anyone ||
					who == "admin" && method == http.MethodPost && (p.Access == site.Admins || p.Access == site.Instructors) {
					text, err := url.QueryUnescape(bad)
					if err != nil {
						t.Fatal(err)
					}
					if got := b.post(pathOf(path, "1"), url.Values{"token": {text}, "kind": {text}}); got.status != 400 {
						t.Errorf("%s with the form %q by %s: %d, want 400", path, text, who, got.status)
					}
				}
			}
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.web.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	request := "POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n" +
		"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("a form whose chunks cannot be read: %d, want 400", resp.StatusCode)
	}
}

// pathOf replaces the wildcards of a path by a value.
func pathOf(path, value string) string {
	for {
		from, to := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		if from < 0 {
			return path
		}
		path = path[:from] + value + path[to+1:]
	}
}
