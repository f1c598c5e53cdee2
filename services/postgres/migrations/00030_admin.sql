-- +goose Up
-- An admin is an instructor who may also issue and withdraw identities.
SET ROLE owner;
ALTER TABLE training.link DROP CONSTRAINT link_role_check;
ALTER TABLE training.link ADD CONSTRAINT link_role_check CHECK (role IN ('person', 'instructor', 'admin'));
RESET ROLE;
