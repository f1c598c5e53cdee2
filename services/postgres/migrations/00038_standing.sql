-- +goose Up
-- The latest score of each person. The company's figures are read from here instead of being computed from all events. People
-- who are in the roster for a run of an exercise only are marked, and count in none of the figures.
SET ROLE owner;

ALTER TABLE people.person ADD COLUMN run text NOT NULL DEFAULT '';  -- the run of an exercise, '' for people of the company

CREATE TABLE risk.standing (
    person   text        NOT NULL REFERENCES people.person ON DELETE CASCADE,
    profile  text        NOT NULL,
    version  integer     NOT NULL,
    role     text        NOT NULL,          -- of the computation, as are position and era
    at       timestamptz NOT NULL,          -- lab time
    position bigint      NOT NULL,
    era      bigint      NOT NULL,
    score    bigint      NOT NULL CHECK (score BETWEEN 0 AND 1000000000000), -- whole 1e-12
    level    text        NOT NULL,
    due      timestamptz,                   -- the next training; null: the standing has to be computed again
    days     timestamptz,                   -- the last midnight of trend
    trend    bigint[],                      -- scores at thirty midnights, oldest first
    PRIMARY KEY (person, profile)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON risk.standing TO risk_writer;

RESET ROLE;
