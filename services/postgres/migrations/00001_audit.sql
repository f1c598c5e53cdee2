-- +goose Up
-- Business rows of the audit are append-only. Each writer has its own hash chain, so that writers do not wait for each other.
-- Writers get EXECUTE on audit.append and nothing else. The members of audit_writer may call it.
CREATE SCHEMA audit AUTHORIZATION owner;
CREATE SCHEMA people AUTHORIZATION owner;
CREATE SCHEMA risk AUTHORIZATION owner;
CREATE SCHEMA training AUTHORIZATION owner;

SET ROLE owner;

CREATE TABLE audit.tip (
    chain text PRIMARY KEY,
    seq   bigint NOT NULL,
    hash  text   NOT NULL
);

CREATE TABLE audit.entry (
    chain  text        NOT NULL,
    seq    bigint      NOT NULL,
    at     timestamptz NOT NULL,
    kind   text        NOT NULL CHECK (kind !~ '[\n\r]'),
    person text        NOT NULL CHECK (person !~ '[\n\r]'),
    event  text        NOT NULL CHECK (event !~ '[\n\r]'),
    detail text        NOT NULL,
    prev   text        NOT NULL,
    hash   text        NOT NULL,
    PRIMARY KEY (chain, seq)
);
CREATE INDEX entry_event ON audit.entry (event) WHERE event <> '';
CREATE INDEX entry_person ON audit.entry (person, at) WHERE person <> '';

-- The hash of an entry is SHA-256, in hex, over its fields, one on each line. The free text is last, so that two different
-- entries never have the same text.
-- +goose StatementBegin
CREATE FUNCTION audit.sum(chain text, seq bigint, at timestamptz, kind text, person text, event text, prev text, detail text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(sha256(convert_to(concat_ws(E'\n', chain, seq::text, (extract(epoch FROM at) * 1000000)::bigint::text, kind, person, event, prev, detail), 'UTF8')), 'hex')
$$;
-- +goose StatementEnd

-- audit.append adds entries, a JSON array of {kind, person, event, detail}, to the chain of the role that is signed in. It
-- locks the tip's row until the caller's transaction ends. The entries commit together with the change that they report.
-- +goose StatementBegin
CREATE FUNCTION audit.append(entries jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    c  text := session_user;
    s  bigint;
    h  text;
    p  text;
    at timestamptz := clock_timestamp();
    e  record;
BEGIN
    INSERT INTO audit.tip AS t (chain, seq, hash) VALUES (c, 0, '') ON CONFLICT (chain) DO NOTHING;
    SELECT t.seq, t.hash INTO s, h FROM audit.tip t WHERE t.chain = c FOR UPDATE;
    FOR e IN SELECT x->>'kind' AS kind, coalesce(x->>'person', '') AS person, coalesce(x->>'event', '') AS event, coalesce(x->>'detail', '') AS detail
             FROM jsonb_array_elements(entries) WITH ORDINALITY AS a(x, n) ORDER BY n
    LOOP
        s := s + 1;
        p := h;
        h := audit.sum(c, s, at, e.kind, e.person, e.event, p, e.detail);
        INSERT INTO audit.entry VALUES (c, s, at, e.kind, e.person, e.event, e.detail, p, h);
    END LOOP;
    UPDATE audit.tip SET seq = s, hash = h WHERE chain = c;
    RETURN s;
END
$$;
-- +goose StatementEnd

-- A writer may read its own chain, for the export, and no other chain.
CREATE VIEW audit.own WITH (security_barrier) AS
    SELECT * FROM audit.entry WHERE chain = session_user;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;
GRANT USAGE ON SCHEMA audit TO audit_writer;
GRANT EXECUTE ON FUNCTION audit.append(jsonb) TO audit_writer;
GRANT SELECT ON audit.own TO audit_writer;

-- Each schema has a group role <schema>_writer. The schema's migrations grant rights to this role. dbkeeper makes the
-- workloads that topology lists for the schema members of it.
GRANT USAGE ON SCHEMA people TO people_writer;
GRANT USAGE ON SCHEMA risk TO risk_writer;
GRANT USAGE ON SCHEMA training TO training_writer;

RESET ROLE;
