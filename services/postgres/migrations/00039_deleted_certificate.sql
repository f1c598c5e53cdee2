-- +goose Up
-- A certificate can be verified after its record was deleted. This table keeps the input of its number and the date that is
-- printed on it, but not whose certificate it was. A row is never changed and never deleted.
SET ROLE owner;

CREATE TABLE training.deleted_certificate (
    lesson uuid PRIMARY KEY,
    given  date NOT NULL
);
GRANT SELECT, INSERT ON training.deleted_certificate TO training_writer;

-- A trigger writes the row, whichever statement deletes the end of a lesson. The deleting program may have written the row
-- before, with the date in the person's time zone, as on the certificate.
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

-- The people who were created for an exercise, so that a reset can delete exactly them with it.
ALTER TABLE training.exercise ADD COLUMN players text[] NOT NULL DEFAULT '{}';

RESET ROLE;
