-- +goose Up
-- What each person's score came to when it was last made, so that the company's figures are read and not made of all events; and who
-- is in the roster for a run of an exercise alone, and so counts in none of them.
SET ROLE owner;

ALTER TABLE people.person ADD COLUMN run text NOT NULL DEFAULT '';  -- the run of an exercise, '' for the company's own

CREATE TABLE risk.standing (
    person   text        NOT NULL REFERENCES people.person ON DELETE CASCADE,
    profile  text        NOT NULL,
    version  integer     NOT NULL,
    role     text        NOT NULL,          -- that it was made with, as are position and era
    at       timestamptz NOT NULL,          -- lab time
    position bigint      NOT NULL,
    era      bigint      NOT NULL,
    score    bigint      NOT NULL CHECK (score BETWEEN 0 AND 1000000000000), -- whole 1e-12
    level    text        NOT NULL,
    due      timestamptz,                   -- the next training; null: the standing is to be made again
    days     timestamptz,                   -- the last midnight of trend
    trend    bigint[],                      -- scores at thirty midnights, oldest first
    PRIMARY KEY (person, profile)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON risk.standing TO risk_writer;

RESET ROLE;
