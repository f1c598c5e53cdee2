-- +goose Up
-- The key under which certificates are numbered. There is one; a reset keeps it, so that what was printed stays valid as
-- long as what it certifies is there.
SET ROLE owner;

CREATE TABLE training.certificate_key (
    sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
    key  bytea   NOT NULL CHECK (length(key) = 32)
);
CREATE INDEX lesson_made ON training.lesson (made, id);
GRANT SELECT, INSERT ON training.certificate_key TO training_writer;

RESET ROLE;
