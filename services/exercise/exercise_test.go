package exercise

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestFaultsOfAnExerciseAreNamedAllAtOnce(t *testing.T) {
	good := Exercise{ID: "leaked-secret", Title: "A token leaves", Difficulty: 2, Minutes: 15, State: "playing",
		Steps: []Step{{At: "17h14m", Who: "mira", What: "commits"}}}
	if err := good.Validate(); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	bad := Exercise{ID: "../x", Brief: "a\x00b", Difficulty: 6, Minutes: -1, State: "asleep",
		Attack: []string{strings.Repeat("x", 41)}, Steps: []Step{{What: "\xff"}}}
	err := bad.Validate()
	if err == nil {
		t.Fatal("a bad one has no fault")
	}
	for _, want := range []string{"id ", "title: missing", "brief", "difficulty 6", "minutes -1", `state "asleep"`,
		"attack[0]", "steps[0].what"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among %v", want, err)
		}
	}
}

func TestFaultsOfAFeedAreNamedAllAtOnce(t *testing.T) {
	good := FeedLine{At: time.Unix(0, 1), Kind: "sign-in", Person: "mira.keller", What: Short(strings.Repeat("é", 300)),
		Event: "git:commit/1", Level: "LOW"}
	if err := (Feed{Lines: []FeedLine{good, {Kind: "event", What: Short("x")}}}).Validate(); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	bad := Feed{Lines: []FeedLine{{Kind: "gossip"}, {Kind: "event", What: "a\x00b"},
		{Kind: "event", What: strings.Repeat("x", 501)}, {Kind: "score", What: "x", Person: "\xff"},
		{Kind: "score", What: "x", Event: strings.Repeat("x", 501), Level: strings.Repeat("x", 21)}}}
	err := bad.Validate()
	if err == nil {
		t.Fatal("a bad one has no fault")
	}
	for _, want := range []string{`lines[0].kind "gossip"`, "lines[1].what", "lines[2].what", "lines[3].person",
		"lines[4].event", "lines[4].level"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among %v", want, err)
		}
	}
	if err := (Feed{Lines: make([]FeedLine, FeedMost+1)}).Validate(); err == nil || !strings.Contains(err.Error(),
		"201 lines") {
		t.Errorf("too many: %v", err)
	}
}

// TestAFeedThatTellsNothingOfIdentitiesKeepsThoseThatAreKnown holds the difference between none and not told.
func TestAFeedThatTellsNothingOfIdentitiesKeepsThoseThatAreKnown(t *testing.T) {
	for _, c := range []struct {
		told Feed
		want string
	}{
		{Feed{}, `{"identities":null,"revoked":null}`},
		{Feed{Identities: []Identity{}, Revoked: []Revoked{}}, `{"identities":[],"revoked":[]}`},
		{Feed{Lines: []FeedLine{{At: time.Unix(0, 1).UTC(), Kind: "event", What: "x"}}},
			`{"lines":[{"at":"1970-01-01T00:00:00.000000001Z","kind":"event","what":"x"}],"identities":null,"revoked":null}`},
	} {
		if b, err := json.Marshal(c.told); err != nil || string(b) != c.want {
			t.Errorf("%s, %v; want %s", b, err, c.want)
		}
	}
}

func TestAnExerciseIsOnWhileItIsPlayedOrPaused(t *testing.T) {
	for _, s := range states {
		if want := s == "playing" || s == "paused"; s.On() != want {
			t.Errorf("%s is on: %v", s, s.On())
		}
	}
}
