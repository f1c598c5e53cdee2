-- +goose Up
-- The newest rows of the caller's own chain. PostgreSQL plans a barrier view by itself, without the order and the number of
-- rows that the query wants. So it would read and sort the whole chain for each page. session_user has the type name; compared
-- as text, it finds a chain by the primary key. Databases that began while this migration had the number 24 have the function
-- already, so it must be possible to run this again.
SET ROLE owner;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.newest(before bigint, wanted text, most integer) RETURNS SETOF audit.entry
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT * FROM audit.entry WHERE chain = session_user::text COLLATE "default" AND (before = 0 OR seq < before) AND (wanted = '' OR kind = wanted) ORDER BY seq DESC LIMIT most
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION audit.newest(bigint, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.newest(bigint, text, integer) TO audit_writer;

RESET ROLE;
