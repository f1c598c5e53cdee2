-- +goose Up
-- Who passed what, for a team's page: it asks for the passes of a few people among all events.
SET ROLE owner;
CREATE INDEX outbox_passes ON training.outbox ((event->>'person')) WHERE event->>'verb' = 'training.passed';
RESET ROLE;
