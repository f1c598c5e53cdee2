package local

import (
	"maps"
	"net"
	"os"
	"slices"
	"strconv"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/topology"
)

// Status implements control.Backend.
func (s *Supervisor) Status() lab.Status {
	issued := s.issuer.Issued()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := lab.Status{
		Name:     s.settings.Spec.Name,
		Runtime:  RuntimeName,
		Identity: s.issuer.name(),
		Isolated: "one uid for each workload",
		Healthy:  true,
		Folder:   string(s.folder.StateDir), Spec: s.settings.Spec,
	}
	if s.settings.UIDs == 0 {
		st.Isolated = "not isolated: all workloads share your uid"
	}
	st.Seeded = s.folder.Milestones().Seeded()
	for _, w := range s.topo.Workloads {
		if w.Web != 0 {
			st.Room = control.Room(s.settings.Host, w.WebTLS, s.settings.Spec.Listen)
			st.Dashboard = "http://" + net.JoinHostPort(s.settings.Host, strconv.Itoa(w.Web))
		}
		if w.Kind == topology.KindOperator {
			continue
		}
		p := s.processes[w.Name]
		ws := lab.WorkloadStatus{
			Name: w.Name, Kind: w.Kind, Address: s.settings.Addr(w), SPIFFEID: s.topo.ID(w.Name).String(),
			Serial: issued[w.Name].Serial, Expires: issued[w.Name].Expires, State: "starting",
		}
		if p != nil {
			ws.Ready, ws.UID, ws.Restarts, ws.Why = p.ready, p.who.uid, p.restarts, p.why
			ws.Program = p.program
			switch {
			case p.ready:
				ws.State, ws.Why = "ready", ""
			case p.cmd == nil:
				ws.State = "restarting"
			}
			if p.cmd != nil {
				ws.PID = p.cmd.Process.Pid
			}
		}
		st.Healthy = st.Healthy && ws.Ready
		st.Workloads = append(st.Workloads, ws)
	}
	st.Processes = append(st.Processes, lab.ProcessStatus{Name: supervisorName, PID: os.Getpid(), Program: s.program})
	for _, name := range slices.Sorted(maps.Keys(s.processes)) {
		p := s.processes[name]
		if p.row.Name != "" {
			continue
		}
		ps := lab.ProcessStatus{Name: name, Restarts: p.restarts}
		if p.cmd != nil {
			ps.PID = p.cmd.Process.Pid
		} else {
			ps.Why = p.why
		}
		st.Processes = append(st.Processes, ps)
	}
	return st
}
