-- +goose Up
-- An index for a team's page, which reads the passed modules of a few people among all events.
SET ROLE owner;
CREATE INDEX outbox_passes ON training.outbox ((event->>'person')) WHERE event->>'verb' = 'training.passed';
RESET ROLE;
