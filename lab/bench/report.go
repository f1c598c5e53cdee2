package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is the result of a run. Its JSON keys are a contract.
type Report struct {
	Date       time.Time `json:"date"`
	Machine    Machine   `json:"machine"`
	Versions   Versions  `json:"versions"`
	Load       Load      `json:"load"`
	Benchmarks []Result  `json:"benchmarks"`
}

// Machine describes the machine. A field is empty if the system does not tell.
type Machine struct {
	System string `json:"system"`
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
}

// Versions are the versions of what was measured.
type Versions struct {
	Go         string `json:"go"`
	Lab        string `json:"lab"`
	PostgreSQL string `json:"postgresql"`
}

// Load is the machine's load average over 1, 5 and 15 minutes, before and after the run. What exceeds the benchmarks'
// own load disturbs the results.
type Load struct {
	Before []float64 `json:"before"`
	After  []float64 `json:"after"`
}

// Result is the result of one benchmark.
type Result struct {
	ID     string  `json:"id"`
	What   string  `json:"what"`
	Ours   Value   `json:"ours"`
	Peer   *Value  `json:"peer"`  // null if there is none
	Ratio  *Spread `json:"ratio"` // of ours to the peer, over the rounds; null without a peer
	Good   float64 `json:"good"`  // a ratio, or a value of ours without a peer
	Goal   float64 `json:"goal"`
	Bound  Bound   `json:"bound"`
	Rounds []Round `json:"rounds"` // without the first one
	Notes  []Note  `json:"notes,omitempty"`
	Failed string  `json:"failed,omitempty"` // why it was not measured
}

// Value is the value of one side.
type Value struct {
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
}

// Spread describes the ratios of the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Round is the result of one round in the benchmark's unit. Peer and ratio are null if there is no peer.
type Round struct {
	Ours  float64  `json:"ours"`
	Peer  *float64 `json:"peer"`
	Ratio *float64 `json:"ratio"`
}

func (b Benchmark) result() Result {
	return Result{
		ID:     b.ID,
		What:   b.What,
		Ours:   Value{Unit: b.Unit},
		Good:   b.Good,
		Goal:   b.Goal,
		Bound:  b.Bound,
		Rounds: []Round{},
	}
}

// spread returns the spread of list, which must not be empty.
func spread(list []float64) Spread {
	return Spread{Median: median(list), Min: slices.Min(list), Max: slices.Max(list)}
}

// fill stores the rounds in r. Alone says that there is no peer.
func (r *Result) fill(rounds []measured, alone bool) {
	var ours, peer, ratios []float64
	for _, m := range rounds {
		one := Round{Ours: m.ours}
		ours = append(ours, m.ours)
		if !alone {
			ratio := m.ours / m.peer
			one.Peer, one.Ratio = &m.peer, &ratio
			peer, ratios = append(peer, m.peer), append(ratios, ratio)
		}
		r.Rounds = append(r.Rounds, one)
	}
	r.Ours.Median = median(ours)
	if !alone {
		of := spread(ratios)
		r.Peer, r.Ratio = &Value{Unit: r.Ours.Unit, Median: median(peer)}, &of
	}
}

// verdict compares the result with good and goal.
func (r *Result) verdict() string {
	value := r.Ours.Median
	if r.Ratio != nil {
		value = r.Ratio.Median
	}
	reached := func(limit float64) bool {
		return r.Bound == AtLeast && value >= limit || r.Bound == AtMost && value <= limit
	}
	switch {
	case r.Failed != "":
		return "failed"
	case reached(r.Goal):
		return "goal"
	case reached(r.Good):
		return "good"
	}
	return "below"
}

// begin records the machine, the versions and the load before anything is measured.
func (r *Report) begin() {
	r.Date, r.Benchmarks = time.Now().UTC().Truncate(time.Second), []Result{}
	r.Machine = Machine{
		System: runtime.GOOS + "/" + runtime.GOARCH,
		Cores:  runtime.GOMAXPROCS(0),
		CPU:    field("/proc/cpuinfo", "model name"),
		Kernel: line("/proc/sys/kernel/osrelease"),
	}
	if kilobytes, err := strconv.ParseInt(
		strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64,
	); err == nil {
		r.Machine.Memory = kilobytes << 10
	}
	r.Versions.Go = runtime.Version()
	r.Load.Before = load()
}

// load is the load average, or empty if the system does not tell.
func load() []float64 {
	list := []float64{}
	for _, text := range strings.Fields(line("/proc/loadavg")) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || len(list) == 3 {
			break
		}
		list = append(list, v)
	}
	return list
}

// line returns the first line of a file, or "" if there is no such file.
func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(b, []byte("\n"))
	return string(first)
}

// field returns what follows "name:" in a file of the kernel, or "".
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	scan := bufio.NewScanner(bytes.NewReader(b))
	for scan.Scan() {
		key, value, ok := strings.Cut(scan.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// WriteJSON writes the report, indented.
func WriteJSON(w io.Writer, r Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report as a table for people.
func WriteText(w io.Writer, r Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BENCHMARK\tOURS\tPEER\tRATIO\tFROM – TO\tGOOD\tGOAL\tROUNDS\t")
	for _, b := range r.Benchmarks {
		sign := map[Bound]string{AtLeast: "≥ ", AtMost: "≤ "}[b.Bound]
		ours, peer, ratio, between := "–", "–", "–", "–"
		if b.Failed == "" {
			ours = digits(b.Ours.Median) + " " + b.Ours.Unit
		}
		if b.Ratio != nil {
			peer, ratio = digits(b.Peer.Median)+" "+b.Peer.Unit, digits(b.Ratio.Median)
			between = digits(b.Ratio.Min) + " – " + digits(b.Ratio.Max)
		}
		fmt.Fprintf(
			t,
			"%s\t%s\t%s\t%s\t%s\t%s%s\t%s%s\t%d\t%s\n",
			b.ID,
			ours,
			peer,
			ratio,
			between,
			sign,
			digits(b.Good),
			sign,
			digits(b.Goal),
			len(b.Rounds),
			b.verdict(),
		)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, b := range r.Benchmarks {
		fmt.Fprintf(w, "%s: %s\n", b.ID, b.What)
		for _, n := range b.Notes {
			fmt.Fprintf(w, "    %s: %s %s\n", n.Name, digits(n.Value), n.Unit)
		}
	}
	_, err := fmt.Fprintf(
		w,
		"\n%d cores, %s, %s; load %v before, %v after\n",
		r.Machine.Cores,
		r.Machine.CPU,
		r.Versions.Go,
		r.Load.Before,
		r.Load.After,
	)
	return err
}

// digits writes v with three significant digits, but all digits before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
