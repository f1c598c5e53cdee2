package stubgemini

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/risk"
)

// schema is the part of the API's Schema object, and of JSON Schema, that shapes an answer.
type schema struct {
	Type             string             `json:"type"`
	Properties       map[string]*schema `json:"properties"`
	PropertyOrdering []string           `json:"propertyOrdering"`
	Required         []string           `json:"required"`
	Items            *schema            `json:"items"`
	MinItems         *count             `json:"minItems"`
	MaxItems         *count             `json:"maxItems"`
	MinLength        *count             `json:"minLength"`
	MaxLength        *count             `json:"maxLength"`
	Minimum          *float64           `json:"minimum"`
	Maximum          *float64           `json:"maximum"`
	Enum             []string           `json:"enum"`
	Nullable         bool               `json:"nullable"`
}

// count is an int64 in protobuf's JSON: a number, or digits in quotes.
type count int

// UnmarshalJSON implements json.Unmarshaler.
func (c *count) UnmarshalJSON(b []byte) error {
	n, err := strconv.Atoi(strings.Trim(string(b), `"`))
	if err != nil {
		return fmt.Errorf("read count %s: %w", b, err)
	}
	*c = count(n)
	return nil
}

// value is any JSON value: an object, a list, a text or a number.
type value = any

var (
	reasonPattern = regexp.MustCompile(`"verb"\s*:\s*"([a-z]+\.[a-z_]+)"` +
		`(?:\s*,\s*"count"\s*:\s*(\d+))?(?:\s*,\s*"detail"\s*:\s*("(?:[^"\\]|\\.)*"))?`)
	verbPattern   = regexp.MustCompile(`\b[a-z]+\.[a-z_]+\b`)
	modulePattern = regexp.MustCompile(`"module"\s*:\s*"([a-z-]+)"`)
)

// read finds the reasons in a prompt, in order, and the module, if it names one.
func read(prompt string) lesson.Request {
	var req lesson.Request
	seen := map[activity.Verb]bool{}
	add := func(r lesson.Reason) {
		if r.Verb.Source().Listed() && !seen[r.Verb] {
			seen[r.Verb] = true
			req.Reasons = append(req.Reasons, r)
		}
	}
	for _, m := range reasonPattern.FindAllStringSubmatch(prompt, -1) {
		r := lesson.Reason{Verb: activity.Verb(m[1]), Count: 1}
		if n, err := strconv.Atoi(m[2]); err == nil && n > 0 {
			r.Count = n
		}
		if m[3] != "" {
			_ = json.Unmarshal([]byte(m[3]), &r.Detail) // an invalid detail is ignored
		}
		add(r)
	}
	for _, v := range verbPattern.FindAllString(prompt, -1) {
		add(lesson.Reason{Verb: activity.Verb(v), Count: 1})
	}
	for _, m := range modulePattern.FindAllStringSubmatch(prompt, -1) {
		if _, known := risk.ModuleByID(m[1]); known {
			req.Module = m[1]
		}
	}
	return req
}

// write answers a prompt: a lesson with the given schema, or prose if no JSON was requested.
func write(rng *rand.Rand, prompt string, shape *schema, asJSON bool) (string, error) {
	c := compose(rng, read(prompt))
	if !asJSON {
		return c.Title + "\n\n" + c.Summary + "\n\n- " + strings.Join(c.Objectives, "\n- "), nil
	}
	b, err := json.Marshal(c)
	if err != nil || shape == nil {
		return string(b), err
	}
	var known value
	if err := json.Unmarshal(b, &known); err != nil {
		return "", fmt.Errorf("read own lesson: %w", err)
	}
	if b, err = json.Marshal(fit(rng, shape, known, "answer", 0)); err != nil {
		return "", fmt.Errorf("encode answer: %w", err)
	}
	return string(b), nil
}

// compose writes a lesson about reasons from the built-in lesson of their module.
func compose(rng *rand.Rand, req lesson.Request) lesson.Content {
	topic := req.Topic()
	c := lesson.BuiltIn(topic).Content
	if len(req.Reasons) == 0 {
		return c
	}
	var about []string
	for _, r := range req.Reasons[:min(3, len(req.Reasons))] {
		about = append(about, phrase(r))
	}
	first := req.Reasons[0]
	openings := []string{
		"In the past weeks your account %s. This is not meant as blame, but it is where this lesson begins. ",
		"This lesson is about something that happened - your account %s. ",
		"Let us start from your own work, in which your account %s. ",
	}
	c.Title = head(c.Title+" - from what happened", 200)
	c.Summary = fmt.Sprintf(openings[rng.IntN(len(openings))], list(about)) + c.Summary
	for _, r := range req.Reasons[:min(2, len(req.Reasons))] {
		c.Objectives = append(c.Objectives,
			fmt.Sprintf("Explain how it came about that your account %s, and what will be different next time",
				risk.Words(r.Verb, r.Count)))
	}
	rng.Shuffle(len(c.Practices), func(i, j int) { c.Practices[i], c.Practices[j] = c.Practices[j], c.Practices[i] })
	c.Quiz = append(c.Quiz, recall(first, req.Reasons))
	rng.Shuffle(len(c.Quiz), func(i, j int) { c.Quiz[i], c.Quiz[j] = c.Quiz[j], c.Quiz[i] })
	for i := range c.Quiz {
		shuffleOptions(rng, &c.Quiz[i])
	}
	return c
}

func phrase(r lesson.Reason) string {
	// a redacted detail, or one that would be, is not quoted
	if r.Detail == "" || strings.ContainsAny(r.Detail, "‹›") || strings.Contains(r.Detail, "://") {
		return risk.Words(r.Verb, r.Count)
	}
	return risk.Words(r.Verb, r.Count) + " (" + head(r.Detail, 120) + ")"
}

func list(s []string) string {
	if len(s) == 1 {
		return s[0]
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}

// recall asks for the act that the lesson is about; the wrong answers are acts that are not in the prompt.
func recall(r lesson.Reason, all []lesson.Reason) lesson.Question {
	right := sentence(risk.Words(r.Verb, r.Count))
	q := lesson.Question{Question: "Which of these was recorded and led to this lesson?", Options: []string{right},
		Why: "It weighs most among the reasons of your score, so changing it helps most."}
	mentioned := map[activity.Verb]bool{}
	for _, x := range all {
		mentioned[x.Verb] = true
	}
	for _, m := range risk.Modules {
		for _, v := range m.Teaches {
			if len(q.Options) < lesson.Options && !mentioned[v] {
				mentioned[v] = true
				q.Options = append(q.Options, sentence(risk.Words(v, 1)))
			}
		}
	}
	for len(q.Options) < lesson.Options {
		q.Options = append(q.Options, fmt.Sprintf("None of the %d others", len(q.Options)))
	}
	return q
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func shuffleOptions(rng *rand.Rand, q *lesson.Question) {
	rng.Shuffle(len(q.Options), func(i, j int) {
		q.Options[i], q.Options[j] = q.Options[j], q.Options[i]
		switch q.Answer {
		case i:
			q.Answer = j
		case j:
			q.Answer = i
		}
	})
}

// fit makes a value with the given schema. It uses values of known with the same names, and generates the rest.
func fit(rng *rand.Rand, s *schema, known value, name string, depth int) value {
	if s == nil || depth > 8 {
		return name
	}
	switch strings.ToUpper(s.Type) {
	case "OBJECT":
		from, _ := known.(map[string]value)
		out := map[string]value{}
		for _, key := range order(s) {
			out[key] = fit(rng, s.Properties[key], from[key], key, depth+1)
		}
		return out
	case "ARRAY":
		from, _ := known.([]value)
		fewest, most := bound(s.MinItems, 1), bound(s.MaxItems, 10)
		out := []value{}
		for i := range max(len(from), fewest) {
			if i >= most {
				break
			}
			var item value
			if i < len(from) {
				item = from[i]
			}
			out = append(out, fit(rng, s.Items, item, name+" "+strconv.Itoa(i+1), depth+1))
		}
		return out
	case "INTEGER", "NUMBER":
		low, high := 0.0, 100.0
		if s.Minimum != nil {
			low = *s.Minimum
		}
		if s.Maximum != nil {
			high = *s.Maximum
		}
		n, ok := known.(float64)
		if !ok {
			n = low
		}
		return min(max(n, low), high)
	case "BOOLEAN":
		b, _ := known.(bool)
		return b
	}
	text, _ := known.(string)
	if len(s.Enum) > 0 {
		for _, e := range s.Enum {
			if e == text {
				return e
			}
		}
		return s.Enum[rng.IntN(len(s.Enum))]
	}
	if text == "" {
		text = "Something about " + name
	}
	for utf8.RuneCountInString(text) < bound(s.MinLength, 0) {
		text += " and more"
	}
	if r := []rune(text); s.MaxLength != nil && len(r) > int(*s.MaxLength) {
		text = string(r[:*s.MaxLength])
	}
	return text
}

func bound(c *count, otherwise int) int {
	if c == nil {
		return otherwise
	}
	return int(*c)
}

// order are the properties' names: those with a given order first, the rest sorted, so that the result is reproducible.
func order(s *schema) []string {
	var keys []string
	seen := map[string]bool{}
	for _, k := range s.PropertyOrdering {
		if s.Properties[k] != nil && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Properties)) {
		if !seen[k] {
			keys = append(keys, k)
		}
	}
	return keys
}

// deface adds to each text of a JSON answer what a hostile model might: markup, links and invisible characters.
func deface(text string) (string, error) {
	var v value
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text + " <script>alert(1)</script>", nil
	}
	b, err := json.Marshal(defaceValue(v))
	if err != nil {
		return "", fmt.Errorf("encode answer: %w", err)
	}
	return string(b), nil
}

func defaceValue(v value) value {
	switch x := v.(type) {
	case map[string]value:
		for k := range x {
			x[k] = defaceValue(x[k])
		}
	case []value:
		for i := range x {
			x[i] = defaceValue(x[i])
		}
	case string:
		return "<b onclick=alert(1)>" + x + "</b>\u202e\u200b\U000E0041 [sign in](https://evil.example/login) " +
			"![x](https://evil.example/p.png) https://evil.example/?k=1"
	}
	return v
}
