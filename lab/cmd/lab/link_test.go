package main

import (
	"errors"
	"strings"
	"testing"

	"example.org/security-training/synth/people"
)

func TestAClassListIsReadByLines(t *testing.T) {
	list, err := classOf("class.txt", []byte("\ufeffanna.one\r\n\n# the second row\n  ben.two \nzoe.last"))
	if err != nil {
		t.Fatal(err)
	}
	want := []named{{"anna.one", "line 1: "}, {"ben.two", "line 4: "}, {"zoe.last", "line 5: "}}
	if len(list) != len(want) {
		t.Fatalf("%v, want %v", list, want)
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("%v, want %v", list[i], want[i])
		}
	}
}

func TestAClassListsFaultsAreNamedAllAtOnceByTheirLines(t *testing.T) {
	_, err := classOf("class.txt", []byte("anna.one\nben.two zoe.last\nanna.one\nx;y\n"))
	for _, want := range []string{
		"class.txt", `line 2: "ben.two zoe.last"`, "line 3: anna.one stands in line 1 already", "line 4: ",
	} {
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	for _, empty := range []string{"", "\n\n", "# none\n"} {
		if _, err := classOf("class.txt", []byte(empty)); !errors.Is(err, errUsage) {
			t.Errorf("a list of no one, %q: %v", empty, err)
		}
	}
}

// Every id that `lab people -o ids` prints is a valid line of a class list.
func TestEveryIdOfACompanyIsALineOfAClassList(t *testing.T) {
	var text strings.Builder
	staff := people.Company(42, 500, people.Published)
	for _, p := range staff {
		text.WriteString(p.ID + "\n")
	}
	if list, err := classOf("class.txt", []byte(text.String())); err != nil || len(list) != len(staff) {
		t.Errorf("%d of %d, %v", len(list), len(staff), err)
	}
}
