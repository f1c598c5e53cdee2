-- +goose Up
-- Sign-ins, lessons, results of quizzes, and the events that are still to be delivered to the risk scorer. The schema
-- belongs to the learning system.
SET ROLE owner;

-- One-time sign-in links. Only the SHA-256 of a token is stored, so a reader of this table cannot sign in with it.
CREATE TABLE training.link (
    token   bytea       PRIMARY KEY,
    role    text        NOT NULL CHECK (role IN ('person', 'instructor')),
    person  text        NOT NULL,           -- empty for an instructor
    made    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires timestamptz NOT NULL,
    used    timestamptz
);

-- Sessions of the dashboard, by the hash of their token.
CREATE TABLE training.session (
    token  text        PRIMARY KEY,
    state  bytea       NOT NULL,
    expiry timestamptz NOT NULL
);
CREATE INDEX session_expiry ON training.session (expiry);

-- The pseudonym of a person outside this system: in requests to the gateway, and so in the model's quota.
CREATE TABLE training.learner (
    person  text PRIMARY KEY,
    subject text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text
);

CREATE TABLE training.lesson (
    id       uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    person   text        NOT NULL,
    module   text        NOT NULL,
    state    text        NOT NULL CHECK (state IN ('writing', 'ready', 'passed', 'failed', 'refused')),
    request  jsonb       NOT NULL,          -- the request to the gateway, which contains no name
    lesson   jsonb,                         -- with the right answers, which never leave the server
    origin   text        NOT NULL DEFAULT '',
    asked    timestamptz NOT NULL,          -- lab time
    made     timestamptz NOT NULL DEFAULT clock_timestamp(),
    again    timestamptz,                   -- when a refused lesson may be requested again
    CHECK ((lesson IS NULL) = (state IN ('writing', 'refused')))
);
CREATE INDEX lesson_person ON training.lesson (person, made DESC);
-- A person has at most one open lesson of a module. A second click finds the lesson of the first.
CREATE UNIQUE INDEX lesson_open ON training.lesson (person, module) WHERE state IN ('writing', 'ready');

CREATE TABLE training.attempt (
    lesson    uuid        NOT NULL REFERENCES training.lesson ON DELETE CASCADE,
    number    integer     NOT NULL CHECK (number BETWEEN 1 AND 3),
    answers   integer[]   NOT NULL,
    correct   integer     NOT NULL,
    questions integer     NOT NULL CHECK (questions > 0 AND correct BETWEEN 0 AND questions),
    passed    boolean     NOT NULL,
    at        timestamptz NOT NULL,         -- lab time
    PRIMARY KEY (lesson, number)
);

-- The end of a lesson, passed or not. before and after are the scorer's scores, in whole 1e-12.
CREATE TABLE training.completion (
    lesson uuid             PRIMARY KEY REFERENCES training.lesson ON DELETE CASCADE,
    person text             NOT NULL,
    module text             NOT NULL,
    event  text             NOT NULL UNIQUE,
    passed boolean          NOT NULL,
    share  double precision NOT NULL CHECK (share BETWEEN 0 AND 1),
    at     timestamptz      NOT NULL,       -- lab time
    before bigint,
    after  bigint
);
CREATE INDEX completion_person ON training.completion (person, at);

-- Events for the risk scorer. They commit with the change that they report and are delivered at least once. The scorer
-- recognises a repeated event by its id.
CREATE TABLE training.outbox (
    seq       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text        NOT NULL UNIQUE,
    event     jsonb       NOT NULL,
    made      timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered timestamptz,
    status    text        NOT NULL DEFAULT '',
    reason    text        NOT NULL DEFAULT ''
);
CREATE INDEX outbox_waiting ON training.outbox (seq) WHERE delivered IS NULL;

CREATE TABLE training.exercise (
    id         text        PRIMARY KEY,
    title      text        NOT NULL,
    brief      text        NOT NULL,
    difficulty integer     NOT NULL,
    minutes    integer     NOT NULL,
    attack     text[]      NOT NULL,
    state      text        NOT NULL,
    steps      jsonb       NOT NULL,
    begun      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed    timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT, UPDATE, DELETE ON training.link, training.session, training.learner, training.lesson, training.attempt,
    training.completion, training.outbox, training.exercise TO training_writer;

RESET ROLE;
