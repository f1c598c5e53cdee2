package matrix

import (
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"text/tabwriter"

	"example.org/security-training/services/topology"
)

// WriteText writes one line for each cell: expected and measured.
func WriteText(w io.Writer, cells []Cell) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tCALLER\tCALLEE\tROUTE\tEXPECTED\tNEW\tKEPT\tREASON")
	for _, c := range cells {
		mark := "✓"
		if !c.OK {
			mark = "✗"
		}
		fmt.Fprintf(
			t,
			"%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			mark,
			c.Caller,
			c.Callee,
			c.Route,
			c.Expected,
			c.Measured,
			c.Kept,
			c.Reason,
		)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeDifferences(w, cells)
}

// edited returns the cells on which the running and the shipped policy differ.
func edited(cells []Cell) []Cell {
	var list []Cell
	for _, c := range cells {
		if c.Running != "" {
			list = append(list, c)
		}
	}
	return list
}

// writeDifferences writes a section about the differences of the running policy, if there are any.
func writeDifferences(w io.Writer, cells []Cell) error {
	list := edited(cells)
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nThe policy was edited since the lab was made: %d calls are decided otherwise.\n", len(list))
	for _, c := range list {
		if _, err := fmt.Fprintf(
			w,
			"  %s -> %s %s: %s as it came, %s now\n",
			c.Caller,
			c.Callee,
			c.Route,
			c.Expected,
			c.Running,
		); err != nil {
			return err
		}
	}
	return nil
}

// WriteHTML writes one page with a row for each caller and a column for each route. Each cell has its outcome and, if
// it was refused, the reason.
func WriteHTML(w io.Writer, cells []Cell) error {
	type column struct {
		Callee string
		Route  topology.Route
	}
	type row struct {
		Caller string
		Cells  []Cell
	}
	var columns []column
	var rows []row
	for _, c := range cells {
		if len(rows) == 0 || rows[len(rows)-1].Caller != c.Caller {
			rows = append(rows, row{Caller: c.Caller})
		}
		r := &rows[len(rows)-1]
		r.Cells = append(r.Cells, c)
		if len(rows) == 1 {
			columns = append(columns, column{c.Callee, c.Route})
		}
	}
	return matrixPage.Execute(w, struct {
		Columns []column
		Rows    []row
		Edited  []Cell
	}{columns, rows, edited(cells)})
}

var matrixPage = template.Must(template.New("matrix").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Who may call what</title>
<style>
:root { color-scheme: light dark; font: 13px system-ui, sans-serif }
table { border-collapse: collapse }
th, td { padding: .3em .5em; border: 1px solid #8884; text-align: left; vertical-align: bottom }
thead th { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 500 }
tbody th { position: sticky; left: 0; background: Canvas }
.Allowed { background: #2a82; } .Forbidden { background: #c802 } .Refused { background: #a332 }
.wrong { outline: 3px solid #d22 } small { display: block; opacity: .75 }
</style>
<h1>Who may call what</h1>
<p>Every caller, strangers included, on every route; measured on a new and on a kept connection.</p>
<table><thead><tr><td></td>{{range .Columns}}<th scope="col"><b>{{.Callee}}</b> {{.Route}}</th>{{end}}</tr></thead>
<tbody>{{range .Rows}}<tr><th scope="row">{{.Caller}}</th>
{{range .Cells}}<td class="{{.Measured}}{{if not .OK}} wrong{{end}}">
{{.Measured}}{{if not .OK}} (expected {{.Expected}}, kept {{.Kept}}){{end}}
<small>{{.Reason}}</small></td>{{end}}</tr>
{{end}}</tbody></table>
{{with .Edited}}<h2>Edited since the lab was made</h2><ul>
{{range .}}<li>{{.Caller}} → {{.Callee}} {{.Route}}: {{.Expected}} as it came, {{.Running}} now</li>
{{end}}</ul>{{end}}</html>
`))

// WriteJSON writes cells as one JSON array.
func WriteJSON(w io.Writer, cells []Cell) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(cells)
}
