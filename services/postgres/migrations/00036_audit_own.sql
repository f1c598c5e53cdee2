-- +goose Up
-- The newest rows of one's own chain. A barrier view is planned by itself and knows neither the order nor the number of rows
-- that are wanted, so it would read and sort a whole chain for each page of it; and session_user is of type name: compared as
-- text, it finds a chain by the primary key. Databases that began while this was numbered 24 have it: it may be done again.
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
