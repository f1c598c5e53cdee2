-- +goose Up
-- What a past score needs to be derived again, and how long each feed has been silent.

SET ROLE owner;

-- An event of an account that belonged to nobody counts for its owner from the position at which the owner became known.
ALTER TABLE risk.event ADD COLUMN owned bigint;            -- null: since its own position

ALTER TABLE risk.score ADD COLUMN role text NOT NULL DEFAULT '';  -- of the person then

-- The latest event of each source, by its own time: a feed that has gone silent is missing, not innocent.
CREATE TABLE risk.feed (
    source text PRIMARY KEY,
    latest timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON risk.feed TO risk_writer;

RESET ROLE;
