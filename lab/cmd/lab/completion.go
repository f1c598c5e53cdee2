package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.org/security-training/lab/bench"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/matrix"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/env"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

// words returns the words that may stand in a place of the command line. It does not ask a running lab.
type words func(c *cobra.Command) []string

// fixed returns words that are always the same.
func fixed[T ~string](list ...T) words {
	all := make([]string, len(list))
	for i, w := range list {
		all[i] = string(w)
	}
	return func(*cobra.Command) []string { return all }
}

// choices has the values of flags that have few, by verb and flag.
var choices = map[string]map[string]words{
	"doctor": {"output": fixed("text", "json"), "runtime": fixed("auto", "local", "kind", "cluster")},
	"up":     {"runtime": fixed("auto", "local", "kind", "cluster"), "identity": fixed("auto", "embedded", "spire")},
	"status": {"output": fixed("text", "json", "env")},
	"people": {"output": fixed("text", "json", "ids"), "level": fixed(levels...), "role": fixed(risk.Roles...)},
	"matrix": {"output": fixed("text", "json", "html"), "against": fixed(matrix.AgainstShipped, matrix.AgainstRunning)},
	"eval":   {"output": fixed("text", "json"), "mix": fixed(people.Published, people.Sparse)},
	"bench":  {"output": fixed("text", "json")},

	"link":               {"role": fixed(roles...)},
	"open":               {"role": fixed(roles...)},
	"certificate issue":  {"role": fixed(roles...)},
	"certificate revoke": {"role": fixed(roles...)},
}

// names has the values of flags that are names in the lab, by verb and flag.
var names = map[string]map[string]words{
	"open":   {"as": personNames},
	"matrix": {"caller": callerNames, "callee": workloadNames},
}

// places has the words for arguments, by verb. The verbs of files also take a file, those of many several arguments.
var (
	places = map[string]words{
		"play":               scenarioNames,
		"reset":              scenarioNames,
		"scenario lint":      scenarioNames,
		"logs":               func(c *cobra.Command) []string { return append(workloadNames(c), "supervisor") },
		"audit tail":         workloadNames,
		"link":               personNames,
		"open":               personNames,
		"certificate issue":  personNames,
		"certificate revoke": personNames,
		"audit rescore":      personNames,
		"bench":              fixed(bench.Names()...),
		"completion":         fixed("bash", "zsh", "fish"),
	}
	files = []string{"play", "reset", "scenario lint"}
	many  = []string{"scenario lint", "certificate issue", "certificate revoke", "bench"} // verbs that take several
)

func scenarioNames(*cobra.Command) []string { return scenarios.Names() }

func workloadNames(*cobra.Command) []string {
	var list []string
	for _, w := range scenarios.Shipped().Topology.Workloads {
		list = append(list, w.Name)
	}
	return list
}

func callerNames(c *cobra.Command) []string {
	list := workloadNames(c)
	for _, s := range matrix.Strangers {
		list = append(list, s.Name)
	}
	return list
}

// personNames returns the ids of the lab's people. The lab's seed determines them.
func personNames(c *cobra.Command) []string {
	is, err := existing(c.Flag("name").Value.String())
	if err != nil {
		return nil
	}
	var list []string
	for _, p := range people.Roster(people.Company(is.Spec.Seed, is.Spec.People, people.Published)) {
		list = append(list, p.ID)
	}
	return list
}

func labNames(*cobra.Command) []string {
	list, err := control.Names(env.Process)
	if err != nil {
		return nil
	}
	return list
}

// setCompletions sets the words for completion of a verb and of those below it.
func setCompletions(c *cobra.Command) {
	_, path, _ := strings.Cut(c.CommandPath(), " ")
	for _, of := range []map[string]map[string]words{choices, names} {
		for flag, of := range of[path] {
			complete(c, flag, of)
		}
	}
	if path == "" {
		complete(c, "name", labNames)
	}
	if place, ok := places[path]; ok {
		c.ValidArgsFunction = func(
			c *cobra.Command, args []string, _ string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
			directive := cobra.ShellCompDirectiveNoFileComp
			if slices.Contains(files, path) {
				directive = cobra.ShellCompDirectiveDefault
			}
			if len(args) > 0 && !slices.Contains(many, path) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			left := slices.DeleteFunc(place(c), func(w string) bool { return slices.Contains(args, w) })
			return left, directive
		}
	} else if c.ValidArgsFunction == nil && !c.HasSubCommands() {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		setCompletions(sub)
	}
}

func complete(c *cobra.Command, flag string, of words) {
	err := c.RegisterFlagCompletionFunc(
		flag,
		func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return of(c), cobra.ShellCompDirectiveNoFileComp
		},
	)
	if err != nil {
		panic(err) // there is no such flag, which running any verb would show
	}
}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "completion SHELL",
		Short:   "Print a script with which a shell completes verbs, flags and names",
		Args:    cobra.ExactArgs(1),
		Example: "  lab completion bash\n  lab completion zsh\n  lab completion fish",
		Long: `Prints a script that makes bash, zsh or fish complete verbs, flags and names: of scenarios, workloads, people
and labs. To have it in each shell that you start:

  bash   echo 'source <(lab completion bash)' >> ~/.bashrc
  zsh    echo 'source <(lab completion zsh)' >> ~/.zshrc      (after compinit)
  fish   lab completion fish > ~/.config/fish/completions/lab.fish`,
		RunE: func(c *cobra.Command, args []string) error {
			out, root := c.OutOrStdout(), c.Root()
			switch args[0] {
			case "bash":
				if _, err := io.WriteString(out, bashAlone); err != nil {
					return err
				}
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return fmt.Errorf("%w: completion %q: want bash, zsh or fish", errUsage, args[0])
		},
	}
}

// bashAlone defines the one function of the package bash-completion that the script needs, if the package is not
// installed.
const bashAlone = `if ! declare -F _get_comp_words_by_ref >/dev/null; then
    _get_comp_words_by_ref()
    {
        words=("${COMP_WORDS[@]}")
        cword=$COMP_CWORD
        cur=${COMP_WORDS[COMP_CWORD]}
        prev=${COMP_WORDS[COMP_CWORD-1]}
    }
fi

`
