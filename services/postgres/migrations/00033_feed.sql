-- +goose Up
-- The console's feed: events in other parts of the lab that the conductor reported. It is stored to survive a restart. Only
-- the latest are kept.
SET ROLE owner;

CREATE TABLE training.feed (
    number bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    told   timestamptz NOT NULL DEFAULT clock_timestamp(),
    line   jsonb       NOT NULL
);

GRANT SELECT, INSERT, DELETE ON training.feed TO training_writer;

RESET ROLE;
