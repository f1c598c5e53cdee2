package httpjson_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"example.org/security-training/services/httpjson"
)

func TestOnlyTextIsRead(t *testing.T) {
	for body, status := range map[string]int{
		`{"name":"a"}`:               200,
		`{"name":"a\u0000"}`:         400,
		`{"name":"\\u0000"}`:         200, // six characters
		`{"name":"\\\u0000"}`:        400,
		`{"name":"\u00000"}`:         400,
		"{\"name\":\"\xff\"}":        400,
		"{\"name\":\"a\x00\"}":       400,
		`{"name":"\ud800"}`:          200, // read as U+FFFD
		`{"name":"Łukasz \u2028 é"}`: 200,
	} {
		var o order
		got := 200
		if err := httpjson.Read(httptest.NewRecorder(), request("application/json", body), 1000, &o); err != nil {
			got = httpjson.FromError(err).Status
		}
		if got != status {
			t.Errorf("%q: %d, want %d", body, got, status)
		}
	}
	for target, ok := range map[string]bool{
		"/a": true, "/a%20b?x=%C3%A9&y": true, "/a%00b": false, "/%ff": false, "/a?x=%00": false, "/a?%ff=1": false,
		"/a?x=%zz": false, "/a?x=1;y=2": false,
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		if err := httpjson.Address(r); (err == nil) != ok {
			t.Errorf("%s: %v", target, err)
		}
	}
}
