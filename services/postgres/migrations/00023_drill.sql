-- +goose Up
-- Phishing campaigns. They stay inside the lab: a message is a page of the learner's mailbox, and no mail is ever sent.
SET ROLE owner;

CREATE TABLE training.campaign (
    id    uuid        PRIMARY KEY,
    lure  text        NOT NULL,             -- the id of the template
    team  text        NOT NULL,             -- the recipients' team; empty: all people
    begun timestamptz NOT NULL,             -- lab time
    made  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One message to one person, with the time of the first of each action that GoPhish counts. What people type into a form is
-- never stored.
CREATE TABLE training.mail (
    id        uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign  uuid        NOT NULL REFERENCES training.campaign ON DELETE CASCADE,
    person    text        NOT NULL,
    lure      text        NOT NULL,
    sent      timestamptz NOT NULL,         -- lab time, as are the other times
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
