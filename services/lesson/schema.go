package lesson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema returns a new JSON schema of Content.
func Schema() *jsonschema.Schema {
	text := func(description string, longest int) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Description: description, MinLength: new(1), MaxLength: new(longest)}
	}
	list := func(description string, fewest, most int, items *jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "array", Description: description, MinItems: &fewest, MaxItems: &most, Items: items}
	}
	return object("A security lesson for one person.",
		property{"title", text("What the lesson is about, a short line.", longestTitle)},
		property{"summary",
			text("Two or three sentences: what happened, why it matters, what the learner will be able to do.", longestText)},
		property{"objectives", list("What the learner can do afterwards, each beginning with a verb.", FewestObjectives,
			MostItems, text("One objective.", longestLine))},
		property{"practices", list("Habits to take home.", FewestPractices, MostItems, object("One habit.",
			property{"title", text("The habit in a few words.", longestTitle)},
			property{"why", text("Why it matters.", longestText)},
			property{"how", text("How to do it, concretely.", longestText)}))},
		property{"quiz", list("Questions that test understanding.", FewestQuestions, MostItems, object("One question.",
			property{"question", text("The question.", longestLine)},
			property{"options", list("Four different answers, one of them right.", Options, Options, text("One answer.",
				longestLine))},
			property{"answer", &jsonschema.Schema{Type: "integer", Description: "Index of the right option, from 0.",
				Minimum: new(0.0), Maximum: new(float64(Options - 1))}},
			property{"why", text("Why that answer is right.", longestText)}))},
	)
}

type property struct {
	name   string
	schema *jsonschema.Schema
}

// object is an object schema: all properties are required, and no others are allowed.
func object(description string, properties ...property) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Description: description, Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	for _, p := range properties {
		s.Properties[p.name] = p.schema
		s.Required = append(s.Required, p.name)
		s.PropertyOrder = append(s.PropertyOrder, p.name)
	}
	return s
}

var resolved = sync.OnceValues(func() (*jsonschema.Resolved, error) { return Schema().Resolve(nil) })

// FromJSON reads a lesson that a model wrote: JSON that matches Schema, which is cleaned and then validated. Errors do
// not quote the text, since it is untrusted.
func FromJSON(text []byte) (Content, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	var instance any
	if err := d.Decode(&instance); err != nil {
		return Content{}, fmt.Errorf("read lesson: not JSON at byte %d of %d", d.InputOffset(), len(text))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Content{}, fmt.Errorf("read lesson: text after the JSON value at byte %d of %d", d.InputOffset(), len(text))
	}
	schema, err := resolved()
	if err != nil {
		return Content{}, fmt.Errorf("resolve lesson schema: %w", err)
	}
	if err := schema.Validate(instance); err != nil {
		return Content{}, errors.New("read lesson: does not match the schema")
	}
	var c Content
	if err := json.Unmarshal(text, &c); err != nil {
		return Content{}, errors.New("read lesson: does not match the schema")
	}
	c = c.Clean()
	if err := c.Validate(); err != nil {
		return Content{}, fmt.Errorf("read lesson: %w", err)
	}
	return c, nil
}
