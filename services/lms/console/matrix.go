package console

import (
	"net/url"
	"slices"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/topology"
)

type matrixView struct {
	pageFrame
	Callee  string
	Callees []site.Choice
	Routes  []matrixRoute
	Rows    []matrixRow
	Latest  []placed // the latest tried calls, the newest first
	Revoked []revokedRow
}

type matrixRoute struct {
	Route   topology.Route
	Callers []callerRow // the workloads that the route admits
}

type callerRow struct{ Name, Cell string }

type revokedRow struct {
	exercise.Revoked
	Cell string
}

type matrixRow struct {
	Caller string
	What   string
	Cells  []matrixCell
}

type matrixCell struct {
	Cell     string // value of the form, by cellOf
	Expected topology.Outcome
	Measured topology.Outcome // empty: not tried
	Wrong    bool
}

// ShowMatrix shows the routes of one callee by caller: the expected outcome, and the measured one of the latest call.
func (c *Console) ShowMatrix(req *site.Request) error {
	m := matrixView{pageFrame: c.frameOf(req, "/console/matrix")}
	topo := c.topology()
	if topo == nil {
		return c.site.Render(req, "console_matrix", "Who may call what", "/console", m)
	}
	m.choose(topo, req.R.URL.Query().Get("callee"))
	tries, err := c.store.orders(req.Ctx(), 400, exercise.OrderTry)
	if err != nil {
		return err
	}
	m.Latest = tries[:min(5, len(tries))]
	c.hub.mu.Lock()
	strangers, revoked := slices.Clone(c.hub.strangers), slices.Clone(c.hub.revoked)
	c.hub.mu.Unlock()
	m.fill(topo, strangers, measuredBy(tries))
	for _, r := range revoked {
		m.Revoked = append(m.Revoked, revokedRow{r, cellOf(r.Caller, r.Callee, r.Route)})
	}
	return c.site.Render(req, "console_matrix", "Who may call what", "/console", m)
}

// measuredBy has the latest result of each call that was tried, by cell.
func measuredBy(tries []placed) map[string]*exercise.Tried {
	measured := map[string]*exercise.Tried{}
	for _, t := range slices.Backward(tries) {
		if t.Result != nil && t.Result.Tried != nil {
			measured[cellOf(t.Caller, t.Callee, t.Route)] = t.Result.Tried
		}
	}
	return measured
}

// choose sets the callee, the gateway if there is none of this name, and lists the workloads that serve routes.
func (m *matrixView) choose(topo *topology.Topology, callee string) {
	m.Callee = callee
	if w, ok := topo.Workload(callee); !ok || len(w.Serves) == 0 {
		m.Callee = ""
		for _, w := range topo.OfKind(topology.KindGateway) {
			m.Callee = w.Name
		}
	}
	for _, w := range topo.Workloads {
		if len(w.Serves) > 0 {
			m.Callees = append(m.Callees, site.Choice{
				Value:  "/console/matrix?" + url.Values{"callee": {w.Name}}.Encode(),
				Name:   w.Name,
				Chosen: w.Name == m.Callee,
			})
		}
	}
}

// fill adds the callee's routes, and a row for each workload and stranger.
func (m *matrixView) fill(
	topo *topology.Topology, strangers []exercise.Stranger, measured map[string]*exercise.Tried,
) {
	callee, _ := topo.Workload(m.Callee)
	routes := callee.Routes()
	for _, route := range routes {
		r := matrixRoute{Route: route}
		for _, w := range topo.Workloads {
			if callee.Serves[route].Admits(w) {
				r.Callers = append(r.Callers, callerRow{w.Name, cellOf(w.Name, m.Callee, route)})
			}
		}
		m.Routes = append(m.Routes, r)
	}
	row := func(caller, what string) {
		line := matrixRow{Caller: caller, What: what}
		for _, route := range routes {
			c := matrixCell{Cell: cellOf(caller, m.Callee, route), Expected: topo.Decide(caller, m.Callee, route)}
			if t := measured[c.Cell]; t != nil {
				c.Measured = t.Measured
				c.Expected, c.Wrong = t.Expected, t.Measured != t.Expected
			}
			line.Cells = append(line.Cells, c)
		}
		m.Rows = append(m.Rows, line)
	}
	for _, w := range topo.Workloads {
		if w.Name != m.Callee {
			row(w.Name, w.Kind)
		}
	}
	for _, s := range strangers {
		row(s.Name, s.What)
	}
}

// cellOf identifies a call in a form; DoOrder splits it.
func cellOf(caller, callee string, route topology.Route) string {
	return caller + "|" + callee + "|" + string(route)
}
