package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.org/security-training/lab/cluster"
	"example.org/security-training/services/env"
)

// The version and commit of a release, or "" in any other build. The linker sets them.
var releasedAs, releasedFrom string

// versions is the output of `lab version`. Its JSON keys are a contract.
type versions struct {
	Version string `json:"version"`
	Commit  string `json:"commit"` // "" if the build does not know it
	Go      string `json:"go"`
	Chart   string `json:"chart"`
	Parts   []part `json:"parts"` // modules and images of others
}

// part is a module or an image.
type part struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// modules lists the modules whose versions determine how a lab behaves, with their names here.
var modules = map[string]string{
	"github.com/spiffe/go-spiffe/v2": "go-spiffe",
	"github.com/jackc/pgx/v5":        "pgx",
	"helm.sh/helm/v4":                "helm",
	"k8s.io/client-go":               "client-go",
	"sigs.k8s.io/kind":               "kind",
}

func versionCommand() *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use: "version", Short: "Print the version, the commit, and the versions of the parts", Args: cobra.NoArgs,
		Example: "  lab version\n  lab version -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := readVersions()
			if err != nil {
				return err
			}
			return writeVersions(c.OutOrStdout(), v, format)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

func readVersions() (versions, error) {
	v := versions{Version: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version, v.Commit = versionOf(info), commitOf(info)
		v.Go = info.GoVersion
		for _, m := range info.Deps {
			if name, ok := modules[m.Path]; ok {
				v.Parts = append(v.Parts, part{name, m.Version})
			}
		}
	}
	var err error
	if v.Chart, err = cluster.ChartVersion(); err != nil {
		return v, err
	}
	images, _, err := cluster.Official(env.Map(nil)) // without the settings of the environment
	if err != nil {
		return v, err
	}
	for _, image := range images {
		repository, _, _ := strings.Cut(path.Base(image), ":")
		v.Parts = append(v.Parts, part{repository + " image", image})
	}
	slices.SortFunc(v.Parts, func(a, b part) int { return cmp.Compare(a.Name, b.Name) })
	return v, nil
}

func writeVersions(w io.Writer, v versions, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "text":
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "lab\t%s\ncommit\t%s\ngo\t%s\nchart\t%s\n", v.Version, cmp.Or(v.Commit, "unknown"), v.Go, v.Chart)
		for _, p := range v.Parts {
			fmt.Fprintf(t, "%s\t%s\n", p.Name, p.Version)
		}
		return t.Flush()
	}
	return fmt.Errorf("%w: -o %q: want text or json", errUsage, format)
}

// version returns this program's version and Go's, for people.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionOf(info) + " " + info.GoVersion
}

// versionOf returns the version of the release, or else of the module, or else the commit of the build.
func versionOf(info *debug.BuildInfo) string {
	v := cmp.Or(releasedAs, info.Main.Version)
	if v == "" || v == "(devel)" {
		if commit := commitOf(info); len(commit) >= 12 {
			v = commit[:12]
		}
	}
	return cmp.Or(v, "(devel)")
}

// commitOf returns the commit of a build, or "" if it does not know it.
func commitOf(info *debug.BuildInfo) string {
	commit, edited := releasedFrom, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && commit == "":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			edited = " (edited)"
		}
	}
	if commit == "" {
		return ""
	}
	return commit + edited
}

// packageChartCommand writes the chart as a package for `helm install`.
func packageChartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "package-chart FOLDER", Short: "Write the chart's package into a folder (make release does this)", Hidden: true,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := cluster.PackageChart(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), file)
			return err
		},
	}
}
