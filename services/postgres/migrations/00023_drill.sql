-- +goose Up
-- Phishing drills. They happen inside the lab alone: a mail is a page of the learner's mailbox, and nothing is ever sent.
SET ROLE owner;

CREATE TABLE training.campaign (
    id    uuid        PRIMARY KEY,
    lure  text        NOT NULL,             -- which mail
    team  text        NOT NULL,             -- to whom; empty: everybody
    begun timestamptz NOT NULL,             -- lab time
    made  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One mail to one person, with the first time of each thing that GoPhish counts. What is typed into a form is kept nowhere.
CREATE TABLE training.mail (
    id        uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign  uuid        NOT NULL REFERENCES training.campaign ON DELETE CASCADE,
    person    text        NOT NULL,
    lure      text        NOT NULL,
    sent      timestamptz NOT NULL,         -- lab time, and so the others
    opened    timestamptz,
    clicked   timestamptz,
    submitted timestamptz,
    reported  timestamptz,
    CHECK (submitted IS NULL OR clicked IS NOT NULL)
);
CREATE UNIQUE INDEX mail_once ON training.mail (campaign, person, lure);
CREATE INDEX mail_person ON training.mail (person, sent DESC);

GRANT SELECT, INSERT, UPDATE, DELETE ON training.campaign, training.mail TO training_writer;

RESET ROLE;
