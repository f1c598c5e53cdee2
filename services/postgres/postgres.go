// Package postgres opens the database with the workload's identity: its SVID is the client certificate, its name is the
// role, and the server must prove by its SPIFFE ID that it is the topology's database. There are no passwords.
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

// expiry is the key, in a connection's custom data, of the time after which it is not used any more.
const expiry = "identity.half_life"

// Open returns a pool for node's role from DB_HOST, DB_PORT and DB_NAME, which connects on first use. A connection is
// used for at most half of the remaining lifetime of the identity that opened it, and not while node has no identity: a
// withdrawn identity also ends the use of open connections.
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

// LiveOnly makes a pool check each connection before its use, even after a short idle time, and replace a dead one. The
// server may have ended it, and a request would fail although the database works.
func LiveOnly(config *pgxpool.Config) {
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
}

// reportTip records the end of this role's audit rows in the chain of decisions, at most once a second. The end of that
// chain is signed outside, so the rows cannot be truncated unnoticed either.
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
			continue // nothing new, or the database is unavailable: try again in a second
		}
		last = tip
		chain.Write(audit.Entry{Kind: audit.KindTip, Detail: tip})
	}
}
