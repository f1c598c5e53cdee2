package cluster

import (
	"fmt"
	"strings"

	"example.org/security-training/services/env"
)

// Official returns the images that the chart's values name apart from the application's, which are SPIRE's and
// PostgreSQL's, or those that LAB_POSTGRES_IMAGE and LAB_SPIRE_VERSION name instead. It also returns them as values for
// the chart.
func Official(lookup env.Lookup) (images []string, values map[string]any, err error) {
	c, err := Chart()
	if err != nil {
		return nil, nil, err
	}
	e := env.Read(lookup)
	values = map[string]any{}
	spire := map[string]any{}
	for _, of := range [][]string{{"spire", "server"}, {"spire", "agent"}, {"postgres"}} {
		repository, tag, err := ImageIn(c.Values, of...)
		if err != nil {
			return nil, nil, err
		}
		if of[0] == "spire" {
			tag = e.Optional("LAB_SPIRE_VERSION", tag)
			spire[of[1]] = map[string]any{"image": map[string]any{"repository": repository, "tag": tag}}
		} else {
			repository, tag = splitImage(e.Optional("LAB_POSTGRES_IMAGE", repository+":"+tag))
			values[of[0]] = map[string]any{"image": map[string]any{"repository": repository, "tag": tag}}
		}
		images = append(images, repository+":"+tag)
	}
	values["spire"] = spire
	return images, values, nil
}

// ImageIn returns the image that the chart's values give to a component.
func ImageIn(values map[string]any, path ...string) (repository, tag string, err error) {
	at := values
	for _, key := range append(path, "image") {
		next, ok := at[key].(map[string]any)
		if !ok {
			return "", "", fmt.Errorf("read the chart's values: there is no %s.image", strings.Join(path, "."))
		}
		at = next
	}
	repository, ok1 := at["repository"].(string)
	tag, ok2 := at["tag"].(string)
	if !ok1 || !ok2 {
		return "", "", fmt.Errorf("read the chart's values: %s.image has no repository and tag", strings.Join(path, "."))
	}
	return repository, tag, nil
}
