package site

import (
	"cmp"
	"slices"
)

// Choice is one entry of a list to choose from.
type Choice struct {
	Value, Name string
	Chosen      bool
}

// Choices are the entries of a list to choose from, by value and name, in the order of the names.
func Choices(names map[string]string, chosen string) []Choice {
	list := make([]Choice, 0, len(names))
	for id, name := range names {
		list = append(list, Choice{Value: id, Name: name, Chosen: id == chosen})
	}
	slices.SortFunc(list, func(a, b Choice) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
