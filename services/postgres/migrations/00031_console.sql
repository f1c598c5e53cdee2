-- +goose Up
-- What an instructor asks for on the console. The conductor, which runs outside the learning system, fetches each order,
-- carries it out and reports the result.
SET ROLE owner;

CREATE TABLE training.console_order (
    number  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text        NOT NULL,
    body    jsonb       NOT NULL,
    role    text        NOT NULL,           -- of the person who asked
    state   text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'taken', 'done', 'failed')),
    note    text        NOT NULL DEFAULT '',
    result  jsonb,
    made    timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX console_order_open ON training.console_order (number) WHERE state IN ('waiting', 'taken');

-- The scenarios that the conductor can play, from its latest announcement.
CREATE TABLE training.scenario (
    name  text    PRIMARY KEY,
    place integer NOT NULL,
    body  jsonb   NOT NULL
);

-- Hints that were given in an exercise, and how many of its 100 points each costs.
CREATE TABLE training.hint (
    exercise text        NOT NULL,
    number   integer     NOT NULL,
    cost     integer     NOT NULL CHECK (cost >= 0),
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (exercise, number)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON training.console_order, training.scenario, training.hint TO training_writer;

RESET ROLE;
