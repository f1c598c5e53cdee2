-- +goose Up
-- The key from which certificates' numbers are derived. There is one. A reset keeps it, so that a printed certificate stays
-- valid as long as its record exists.
SET ROLE owner;

CREATE TABLE training.certificate_key (
    sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
    key  bytea   NOT NULL CHECK (length(key) = 32)
);
CREATE INDEX lesson_made ON training.lesson (made, id);
GRANT SELECT, INSERT ON training.certificate_key TO training_writer;

RESET ROLE;
