// Package postgres opens the database by identity: the workload's SVID is the client certificate, its name is the role, and
// the server proves by its own SPIFFE ID that it is the database of the topology. There is no password anywhere.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/mesh"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations is the folder of goose's SQL files, in order, forward only.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded at build time
	}
	return sub
}

// expiry is the key, among a connection's own values, of the time from which it is not used again.
const expiry = "identity.half_life"

// Open makes a pool for node's role from DB_HOST, DB_PORT and DB_NAME; it connects when first used. No connection is used
// for longer than half of what was left of the identity that opened it, nor while node has none: withdrawn is withdrawn from
// what is open, too.
func Open(ctx context.Context, node *mesh.Node, lookup env.Lookup) (*pgxpool.Pool, error) {
	host, port, err := net.SplitHostPort(node.DatabaseAddress())
	if err != nil {
		return nil, fmt.Errorf("open database: topology lists no database: %w", err)
	}
	r := env.Read(lookup)
	host = r.Optional("DB_HOST", host)
	port = r.Optional("DB_PORT", port)
	name := r.Optional("DB_NAME", "security_training")
	most := r.Int("DB_CONNECTIONS", 8)
	number, err := strconv.ParseUint(port, 10, 16)
	if err := errors.Join(r.Err(), err); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	config, err := pgxpool.ParseConfig("sslmode=verify-full")
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	cc := config.ConnConfig
	cc.Host, cc.Port, cc.Database, cc.User, cc.Password = host, uint16(number), name, node.Self().Name, ""
	cc.TLSConfig = node.Database()
	cc.Fallbacks = nil // never plaintext, never another host
	cc.ConnectTimeout = 5 * time.Second
	cc.RuntimeParams = map[string]string{"application_name": node.Self().Name, "timezone": "UTC"}
	config.MaxConns = int32(most)
	config.MaxConnIdleTime = time.Minute
	LiveOnly(config)
	config.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		c.PgConn().CustomData()[expiry] = time.Now().Add(node.HalfLife())
		return nil
	}
	config.PrepareConn = func(_ context.Context, c *pgx.Conn) (bool, error) {
		if _, err := node.Identity(); err != nil {
			return false, fmt.Errorf("use database: %w", err)
		}
		until, ok := c.PgConn().CustomData()[expiry].(time.Time)
		return ok && time.Now().Before(until), nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	node.Ready(func(ctx context.Context) error { return pool.Ping(ctx) })
	go reportTip(ctx, pool, node.Audit())
	return pool, nil
}

// LiveOnly has a pool ask each connection whether it lives before it is used, however short it was idle, and open another in
// place of one that does not: the server may have ended it since, and a request would fail for it while the database is well.
func LiveOnly(config *pgxpool.Config) {
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
}

// reportTip writes down, once a second of activity, how far this role's rows of the audit have come: in the chain of
// decisions, whose end is signed from outside. So the rows' end cannot be cut off either.
func reportTip(ctx context.Context, pool *pgxpool.Pool, chain *audit.Log) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tip := ""
		err := pool.QueryRow(ctx, "SELECT seq || ' ' || hash FROM audit.own ORDER BY seq DESC LIMIT 1").Scan(&tip)
		if err != nil || tip == last {
			continue // nothing yet, or nothing new, or the database is away: the next second tells
		}
		last = tip
		chain.Write(audit.Entry{Kind: audit.KindTip, Detail: tip})
	}
}
