// Package manifests embeds the Helm chart, whose topology.yaml is the source of truth for the whole product.
package manifests

import (
	"embed"
	"io/fs"
)

//go:embed all:chart
var files embed.FS

// Chart is the chart's folder.
func Chart() fs.FS {
	sub, err := fs.Sub(files, "chart")
	if err != nil {
		panic(err) // the folder is embedded at build time
	}
	return sub
}

// Topology is the text of topology.yaml.
func Topology() []byte { return read("chart/topology.yaml") }

// PostgresHBA is the text of pg_hba.conf: which roles may sign in to the database, and how. The runtime writes the map
// "keeper", which it names, into pg_ident.conf.
func PostgresHBA() []byte { return read("chart/files/postgres/pg_hba.conf") }

// PostgresSettings is the text of postgresql.conf: the settings that the database's server needs in every runtime. It
// has no addresses and paths.
func PostgresSettings() []byte { return read("chart/files/postgres/postgresql.conf") }

func read(path string) []byte {
	b, err := files.ReadFile(path)
	if err != nil {
		panic(err) // the file is embedded at build time
	}
	return b
}
