-- +goose Up
-- A certificate can be verified after its record was deleted: what is left is what its number is made from, and the date that it
-- bears, and nothing of whose it was. A line is never changed, and never taken away.
SET ROLE owner;

CREATE TABLE training.deleted_certificate (
    lesson uuid PRIMARY KEY,
    given  date NOT NULL
);
GRANT SELECT, INSERT ON training.deleted_certificate TO training_writer;

-- However the end of a lesson is deleted, its line is there. Who deletes it may have written one before, with the date in the zone
-- of the person, as the certificate bears it.
-- +goose StatementBegin
CREATE FUNCTION training.keep_certificate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO training.deleted_certificate (lesson, given) VALUES (old.lesson, (old.at AT TIME ZONE 'UTC')::date) ON CONFLICT DO NOTHING;
    RETURN old;
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION training.keep_certificate() FROM PUBLIC;

CREATE TRIGGER keep_certificate BEFORE DELETE ON training.completion FOR EACH ROW WHEN (old.passed) EXECUTE FUNCTION training.keep_certificate();

-- The people who were made for an exercise, so that it can be taken away with them and without anybody else.
ALTER TABLE training.exercise ADD COLUMN players text[] NOT NULL DEFAULT '{}';

RESET ROLE;
