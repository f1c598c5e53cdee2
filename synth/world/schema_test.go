package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"

	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

// judge holds payloads of one kind against a schema.
type judge struct {
	*jsonschema.Resolved
	required []string
}

func (j judge) says(t *testing.T, body []byte) error {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	return j.Validate(v)
}

// written is a schema of testdata, which names its source.
func schemaOf(t *testing.T, name string) judge {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Comment, "Source") {
		t.Errorf("%s does not name its source", name)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return judge{r, s.Required}
}

var refs = regexp.MustCompile(`"#/\$defs/([^"]+)"`)

// github are GitHub's own schemas of its webhooks, from the description of its API that it publishes, a development
// dependency that is not shipped.
func github(t *testing.T) func(r source.Record) judge {
	t.Helper()
	text := needtest.WebCheck(t, "../..", "@octokit/openapi-webhooks/generated/api.github.com.json")
	var api struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("#/components/schemas/"), []byte("#/$defs/")),
		&api); err != nil {
		t.Fatal(err)
	}
	known := map[string]judge{}
	return func(r source.Record) judge {
		t.Helper()
		var head struct {
			Action string `json:"action"`
		}
		if err := json.Unmarshal(r.Body, &head); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix("webhook-"+strings.ReplaceAll(r.Kind, "_", "-")+"-"+head.Action, "-")
		if j, ok := known[name]; ok {
			return j
		}
		if api.Components.Schemas[name] == nil {
			t.Fatalf("GitHub has no %s", name)
		}
		root := &jsonschema.Schema{Ref: "#/$defs/" + name, Defs: map[string]*jsonschema.Schema{}}
		for need := []string{name}; len(need) > 0; need = need[1:] { // what it refers to, and no other event's
			if root.Defs[need[0]] != nil {
				continue
			}
			text := api.Components.Schemas[need[0]]
			var s jsonschema.Schema
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			root.Defs[need[0]] = &s
			for _, m := range refs.FindAllSubmatch(text, -1) {
				need = append(need, string(m[1]))
			}
		}
		resolved, err := root.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		known[name] = judge{resolved, root.Defs[name].Required}
		return known[name]
	}
}

// samples are payloads of a month of a company with every storyline: the first of each kind, and then each that looks
// different from all before, so that each shape is among them.
func samples(t *testing.T, vendor string) map[string][]source.Record {
	t.Helper()
	staff, roster := company(42, 50)
	traces, err := Traces(roster, vendors(routine.Month(staff, 30)))
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string]bool{}
	found := map[string][]source.Record{}
	for _, r := range traces[vendor] {
		var v any
		if err := json.Unmarshal(r.Body, &v); err != nil {
			t.Fatal(err)
		}
		if key := r.Kind + shape(v); !shapes[key] || len(found[r.Kind]) < 20 {
			shapes[key] = true
			found[r.Kind] = append(found[r.Kind], r)
		}
	}
	return found
}

// shape is a payload without its words and numbers; short words, which may be of a fixed list, stay.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		text := ""
		for _, k := range slices.Sorted(maps.Keys(v)) {
			text += k + ":" + shape(v[k]) + ","
		}
		return "{" + text + "}"
	case []any:
		text := ""
		for _, x := range v {
			text += shape(x) + ","
		}
		return "[" + text + "]"
	case string:
		if len(v) < 14 && strings.ToLower(v) == v && !strings.ContainsAny(v, "0123456789") {
			return v
		}
		return "s"
	case float64:
		if v < 1000 {
			return fmt.Sprint(v)
		}
	}
	return fmt.Sprintf("%T", v)
}

// The payloads of every vendor are as that vendor publishes them. Each schema is shown to refuse a payload without any
// one of the fields that it requires, or with one of another type.
func TestPayloadsAreOfTheVendorsPublishedShapes(t *testing.T) {
	needtest.Unhurried(t, "all records of a month are compared with their schema")
	for _, c := range []struct {
		vendor string
		kinds  []string
		judge  func(t *testing.T) func(source.Record) judge
	}{
		{"git", []string{"dependabot_alert", "pull_request_review", "push", "secret_scanning_alert",
			"secret_scanning_alert_location"}, github},
		{"jira", []string{"webhook"}, always("jira")},
		{"iam", []string{"cloudtrail", "okta"}, byKind},
		{"siem", []string{"HEC envelope"}, always("hec")},
	} {
		t.Run(c.vendor, func(t *testing.T) {
			of, found := c.judge(t), samples(t, c.vendor)
			if diff := cmp.Diff(c.kinds, slices.Sorted(maps.Keys(found))); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			for kind, list := range found {
				faults := 0
				for _, r := range list {
					if err := of(r).says(t, r.Body); err != nil && faults < 3 {
						faults++
						t.Errorf("%s: %v\n%.300s", kind, err, r.Body)
					}
				}
				refusesBroken(t, kind, of(list[0]), list[0].Body)
			}
		})
	}
}

func always(name string) func(*testing.T) func(source.Record) judge {
	return func(t *testing.T) func(source.Record) judge {
		j := schemaOf(t, name)
		return func(source.Record) judge { return j }
	}
}

func byKind(t *testing.T) func(source.Record) judge {
	known := map[string]judge{"okta": schemaOf(t, "okta"), "cloudtrail": schemaOf(t, "cloudtrail")}
	return func(r source.Record) judge { return known[r.Kind] }
}

func refusesBroken(t *testing.T, kind string, j judge, body []byte) {
	t.Helper()
	if len(j.required) == 0 {
		t.Errorf("%s: the schema requires nothing", kind)
	}
	for _, field := range j.required {
		for what, breakIt := range map[string]func(map[string]any){
			"without":                 func(v map[string]any) { delete(v, field) },
			"with a list of lists as": func(v map[string]any) { v[field] = []any{[]any{}} },
		} {
			var v map[string]any
			if err := json.Unmarshal(body, &v); err != nil {
				t.Fatal(err)
			}
			breakIt(v)
			if j.Validate(v) == nil {
				t.Errorf("%s %s %s passes", kind, what, field)
			}
		}
	}
}

// A repository's times are numbers in a push and text in every other event: what was wrong here once, and a schema
// found it.
func TestGitHubsSchemaRefusesARepositorysTimesInTheFormOfAnotherEvent(t *testing.T) {
	of := github(t)
	found := samples(t, "git")
	for kind, wrong := range map[string]any{"push": "yesterday", "pull_request_review": 1788260806,
		"dependabot_alert": 1788260806} {
		var v map[string]any
		r := found[kind][0]
		if err := json.Unmarshal(r.Body, &v); err != nil {
			t.Fatal(err)
		}
		repository := v["repository"].(map[string]any)
		repository["pushed_at"] = []any{wrong}
		if of(r).Validate(v) == nil {
			t.Errorf("%s with pushed_at %v passes", kind, wrong)
		}
		if kind != "push" { // which allows either
			repository["pushed_at"] = wrong
			repository["created_at"] = wrong
			if of(r).Validate(v) == nil {
				t.Errorf("%s with created_at %v passes", kind, wrong)
			}
		}
	}
}
