-- +goose Up
-- Whose client certificates are good no more: all of a name and role that begin at before or earlier, by the clock of who
-- issues them. A line is never taken away, and its time only ever rises.
SET ROLE owner;

CREATE TABLE training.revoked_certificate (
    role    text        NOT NULL CHECK (role IN ('person', 'instructor', 'admin')),
    name    text        NOT NULL,           -- an id of the roster; for a role that is nobody's own, the role
    before  timestamptz NOT NULL,
    by      text        NOT NULL,           -- which workload asked
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (role, name)
);

GRANT SELECT, INSERT, UPDATE ON training.revoked_certificate TO training_writer;

RESET ROLE;
