package console

import (
	"slices"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/topology"
)

type identitiesView struct {
	pageFrame
	Rows   []identityRow
	Orders []placed
}

type identityRow struct {
	exercise.Identity
	Kind         string
	Withdrawn    bool
	Withdrawable bool
}

// identityKinds are the kinds of orders about identities.
var identityKinds = []string{exercise.OrderRotate, exercise.OrderWithdraw, exercise.OrderReturn}

// ShowIdentities lists the identities of the workloads, with the orders that are possible.
func (c *Console) ShowIdentities(req *site.Request) error {
	m := identitiesView{pageFrame: c.frameOf(req, "/console/identities")}
	c.hub.mu.Lock()
	known := slices.Clone(c.hub.identities)
	c.hub.mu.Unlock()
	if topo := c.topology(); topo != nil {
		for _, id := range known {
			w, _ := topo.Workload(id.Workload)
			m.Rows = append(
				m.Rows,
				identityRow{Identity: id, Kind: w.Kind, Withdrawn: id.Serial == "", Withdrawable: withdrawable(w)},
			)
		}
	}
	var err error
	if m.Orders, err = c.store.orders(req.Ctx(), 6, identityKinds...); err != nil {
		return err
	}
	return c.site.Render(req, "console_identities", "Identities", "/console", m)
}

// DoIdentity places an order about an identity, which only an admin may do. 422 for an order that is not possible.
func (c *Console) DoIdentity(req *site.Request) error {
	o := exercise.Order{Kind: req.R.PostForm.Get("kind"), Workload: req.R.PostForm.Get("workload")}
	if !slices.Contains(identityKinds, o.Kind) {
		return badOrder("The console cannot do %q to an identity.", o.Kind)
	}
	topo := c.topology()
	if topo == nil {
		return badOrder("The lab has no topology.")
	}
	w, ok := topo.Workload(o.Workload)
	if !ok || w.Kind == topology.KindOperator {
		return badOrder("There is no workload %q.", o.Workload)
	}
	if o.Kind == exercise.OrderWithdraw && !withdrawable(w) {
		return badOrder("Without the identity of %s this page could not give it back. Use the command line for that.",
			o.Workload)
	}
	if _, err := c.placeOrder(req.Ctx(), req.Viewer.Principal, o); err != nil {
		return err
	}
	return back(req, "/console/identities")
}

// withdrawable reports whether the console still works without a workload's identity.
func withdrawable(w topology.Workload) bool {
	return w.Kind != topology.KindDashboard && w.Kind != topology.KindDatabase
}
