-- +goose Up
-- Schema audit belongs to package services/postgres/audited. Rows about a person name events as strings in a JSON detail.
-- Earlier rows named them as words of a text.
SET ROLE owner;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.story(wanted text, who text, since timestamptz, until timestamptz, most integer) RETURNS SETOF audit.entry
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT * FROM (
        SELECT * FROM audit.entry WHERE event = wanted AND event <> '' AND chain = session_user::text COLLATE "default"
        UNION
        SELECT * FROM audit.entry WHERE person = who AND person <> '' AND at BETWEEN since AND until AND chain = session_user::text COLLATE "default"
            AND (wanted = '' OR position(to_json(wanted)::text IN detail) > 0 OR position(' ' || wanted || ' ' IN ' ' || detail || ' ') > 0)
    ) found ORDER BY seq LIMIT most
$$;
-- +goose StatementEnd

RESET ROLE;
