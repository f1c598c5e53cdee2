-- +goose Up
-- A trigger enforces the promise of migration 35 for every role that may write: a revocation's time only rises, and its name
-- and role do not change.
SET ROLE owner;

-- +goose StatementBegin
CREATE FUNCTION training.revoked_only_rises() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF new.before < old.before OR (new.role, new.name) IS DISTINCT FROM (old.role, old.name) THEN
        RAISE EXCEPTION 'a revocation is not taken back' USING ERRCODE = 'check_violation';
    END IF;
    RETURN new;
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION training.revoked_only_rises() FROM PUBLIC;

CREATE TRIGGER only_rises BEFORE UPDATE ON training.revoked_certificate FOR EACH ROW EXECUTE FUNCTION training.revoked_only_rises();

RESET ROLE;
