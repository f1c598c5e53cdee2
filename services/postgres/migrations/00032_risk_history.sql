-- +goose Up
-- Data from which a past score can be derived again, and the time since which each feed has been silent.

SET ROLE owner;

-- The account of an event may have had no owner at first. The event then counts for the owner from the position at which the
-- owner became known.
ALTER TABLE risk.event ADD COLUMN owned bigint;            -- null: since its own position

ALTER TABLE risk.score ADD COLUMN role text NOT NULL DEFAULT '';  -- of the person at that time

-- The latest event of each source, by its own time. A feed that has gone silent is missing: it does not prove that no risky
-- event happened.
CREATE TABLE risk.feed (
    source text PRIMARY KEY,
    latest timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON risk.feed TO risk_writer;

RESET ROLE;
