-- +goose Up
-- Revoked client certificates: all certificates of a name and role that begin at before or earlier, by the clock of their
-- issuer. A row is never deleted, and its time only rises.
SET ROLE owner;

CREATE TABLE training.revoked_certificate (
    role    text        NOT NULL CHECK (role IN ('person', 'instructor', 'admin')),
    name    text        NOT NULL,           -- an id of the roster; the role itself for a role that belongs to no person
    before  timestamptz NOT NULL,
    by      text        NOT NULL,           -- the workload that asked
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (role, name)
);

GRANT SELECT, INSERT, UPDATE ON training.revoked_certificate TO training_writer;

RESET ROLE;
