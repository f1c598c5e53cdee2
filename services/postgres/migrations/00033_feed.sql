-- +goose Up
-- What the conductor told of what happens elsewhere: the console's feed, so that it survives a restart. The latest are kept.
SET ROLE owner;

CREATE TABLE training.feed (
    number bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    told   timestamptz NOT NULL DEFAULT clock_timestamp(),
    line   jsonb       NOT NULL
);

GRANT SELECT, INSERT, DELETE ON training.feed TO training_writer;

RESET ROLE;
