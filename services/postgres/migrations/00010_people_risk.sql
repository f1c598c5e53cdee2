-- +goose Up
-- The people, their events and their scores. Both schemas belong to the risk scorer.

-- The scorer copies each batch into a temporary table before it merges it.
-- +goose StatementBegin
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO risk_writer', current_database()); END $$;
-- +goose StatementEnd

SET ROLE owner;

CREATE TABLE people.person (
    id       text PRIMARY KEY,
    name     text NOT NULL,
    email    text NOT NULL,
    role     text NOT NULL,
    team     text NOT NULL,
    manager  text NOT NULL,
    joined   date NOT NULL,
    gone     date,                          -- the first day after
    zone     text NOT NULL,
    accounts text[] NOT NULL,
    added    bigint NOT NULL DEFAULT 0,     -- position of the event log when the person was added to the roster
    position bigint NOT NULL DEFAULT 0,     -- of the person's last event
    era      bigint NOT NULL DEFAULT 0      -- changes when earlier events are assigned to this person, or taken from them
);
-- Replicas cache a person's events up to a position. The cache is valid for one era.
CREATE SEQUENCE people.era;

-- Accounts are stored in lower case, since vendors treat case differently.
CREATE TABLE people.account (
    account text PRIMARY KEY,
    person  text NOT NULL REFERENCES people.person ON DELETE CASCADE
);
CREATE INDEX account_person ON people.account (person);

-- Lab time is base + (wall clock − since) · pace.
CREATE TABLE people.clock (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    base  timestamptz NOT NULL,
    since timestamptz NOT NULL,
    pace  double precision NOT NULL CHECK (pace > 0)
);

CREATE TABLE risk.event (
    position  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text        NOT NULL UNIQUE,
    person    text,                         -- null while its accounts belong to no person
    source    text        NOT NULL,
    verb      text        NOT NULL,
    at        timestamptz NOT NULL,
    event     jsonb       NOT NULL,         -- as it arrived; its own "at" keeps the offset
    collector text        NOT NULL,         -- SPIFFE ID
    serial    text        NOT NULL,         -- of the collector's SVID
    late      boolean     NOT NULL,         -- more than 48 h behind the lab's clock
    received  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_person ON risk.event (person, position);

CREATE TABLE risk.score (
    person   text        NOT NULL,
    at       timestamptz NOT NULL,          -- lab time
    position bigint      NOT NULL,          -- of the person's last event that it knows
    profile  text        NOT NULL,
    version  integer     NOT NULL,
    score    bigint      NOT NULL CHECK (score BETWEEN 0 AND 1000000000000), -- whole 1e-12
    level    text        NOT NULL,
    PRIMARY KEY (person, position, profile)
);
CREATE INDEX score_at ON risk.score (person, at);

-- A collector sends a batch only when the scorer has answered every earlier entry. So the last entry that was answered is the
-- highest contiguous one.
CREATE TABLE risk.watermark (
    collector text PRIMARY KEY,
    seq       bigint      NOT NULL,
    at        timestamptz NOT NULL          -- wall clock
);

CREATE TABLE risk.dead_letter (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text        NOT NULL,
    collector text        NOT NULL,
    serial    text        NOT NULL,
    seq       bigint      NOT NULL,
    reason    text        NOT NULL,
    event     bytea       NOT NULL,         -- the line as it arrived, since jsonb cannot hold every line
    received  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (collector, id, reason)
);

-- Accounts that belong to no person. An event counts for its first account.
CREATE TABLE risk.unknown_account (
    account text PRIMARY KEY,
    events  bigint      NOT NULL,
    first   timestamptz NOT NULL,
    last    timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON people.person, people.account TO people_writer;
GRANT SELECT, INSERT, UPDATE ON people.clock TO people_writer;
GRANT USAGE ON SEQUENCE people.era TO people_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON risk.event, risk.score, risk.watermark, risk.dead_letter, risk.unknown_account TO risk_writer;

RESET ROLE;
