-- +goose Up
-- The rows of the caller's own chain about an event, and the rows about a person in a span of time that mention the event. Two
-- indexes find them, however long the chain is. Without an event, all rows about the person in that span.
SET ROLE owner;

-- +goose StatementBegin
CREATE FUNCTION audit.story(wanted text, who text, since timestamptz, until timestamptz, most integer) RETURNS SETOF audit.entry
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT * FROM (
        SELECT * FROM audit.entry WHERE event = wanted AND event <> '' AND chain = session_user::text COLLATE "default"
        UNION
        SELECT * FROM audit.entry WHERE person = who AND person <> '' AND at BETWEEN since AND until AND chain = session_user::text COLLATE "default"
            AND (wanted = '' OR position(' ' || wanted || ' ' IN ' ' || detail || ' ') > 0)
    ) found ORDER BY seq LIMIT most
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION audit.story(text, text, timestamptz, timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.story(text, text, timestamptz, timestamptz, integer) TO audit_writer;

RESET ROLE;
