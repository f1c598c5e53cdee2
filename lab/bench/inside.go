package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/seed"
	"example.org/security-training/services/env"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
)

// errNoLab says that a benchmark's lab cannot be brought up. It is joined with the error that says why.
var errNoLab = errors.New("it needs a lab of its own")

// Inside is a lab for benchmarks alone.
type Inside struct {
	Lab  *control.Lab
	Spec lab.Spec
	Down func(context.Context) error
}

// insider is a lab for benchmarks, as the benchmarks see it.
type insider struct {
	Inside
	op       *operator.Operator
	topo     *topology.Topology
	staff    []people.Person
	db       *pgxpool.Pool // as the scorer, which owns the tables
	postgres string        // the server's version
	stop     context.CancelFunc
	day      int // the last day of the lab on which something happened
	number   int // findings that were reported so far
	batch    int // rows that a peer was given so far
}

// enter brings the lab up, with its people and their history. Nothing happens in it by itself.
func enter(ctx context.Context, up func(context.Context) (*Inside, error)) (i *insider, err error) {
	if up == nil {
		return nil, fmt.Errorf("%w, and this program cannot bring one up", errNoLab)
	}
	in, err := up(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLab, err)
	}
	i = &insider{Inside: *in, staff: people.Company(in.Spec.Seed, in.Spec.People, people.Published)}
	ctx, i.stop = context.WithCancel(ctx)
	if err := i.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errNoLab, err), i.leave(progress.Quiet{}))
	}
	return i, nil
}

func (i *insider) join(ctx context.Context) (err error) {
	if i.op, err = operator.Enter(ctx, i.Lab); err != nil {
		return err
	}
	i.topo = i.op.Node.Topology()
	if _, err = seed.History(ctx, i.op, i.Spec, progress.Quiet{}); err != nil {
		return err
	}
	scorer, err := i.member(ctx, i.one(topology.KindScorer, "").Name)
	if err != nil {
		return err
	}
	addr, err := i.Lab.Addr(ctx, i.one(topology.KindDatabase, "").Name)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if i.db, err = postgres.Open(
		ctx, scorer, env.Map(map[string]string{"DB_PORT": port, "DB_CONNECTIONS": "2"}),
	); err != nil {
		return err
	}
	return i.db.QueryRow(ctx, `SHOW server_version`).Scan(&i.postgres)
}

// one returns the first row of a kind and, if source is not empty, of that source.
func (i *insider) one(kind, source string) topology.Workload {
	for _, w := range i.topo.OfKind(kind) {
		if source == "" || w.Source == source {
			return w
		}
	}
	return topology.Workload{}
}

// member joins the lab's mesh as one of its workloads, in addition to the workload itself.
func (i *insider) member(ctx context.Context, name string) (*mesh.Node, error) {
	svid, bundles, err := i.Lab.Mint(ctx, i.topo.ID(name), life)
	if err != nil {
		return nil, err
	}
	held := &mesh.Held{}
	held.Set(svid, bundles)
	cfg := i.Lab.Mesh()
	cfg.Identities, cfg.AuditFile, cfg.Log = held, os.DevNull, quiet
	return mesh.Join(ctx, name, cfg)
}

// nextDay moves the lab's clock to the next day, and returns when that day begins.
func (i *insider) nextDay(ctx context.Context) (time.Time, error) {
	from := risk.Epoch.Add(time.Duration(i.day) * 24 * time.Hour)
	i.day++
	return from, i.op.Forward(ctx, from.Add(24*time.Hour))
}

// secret is the secret that a source's vendor and collector share. In a local lab it is a file of the collector's.
func (i *insider) secret(collector string) (string, error) {
	b, err := os.ReadFile(i.Lab.StateDir().Of(collector).Path("source.secret"))
	return strings.TrimSpace(string(b)), err
}

// leave takes the lab down, also after the run was interrupted.
func (i *insider) leave(say progress.Reporter) error {
	if i.db != nil {
		i.db.Close()
	}
	i.stop()
	return progress.Step(say, "take the benchmarks' lab down", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return i.Down(ctx)
	})
}
