-- The role of logins that migrate, a member of the owner. See docs/concepts/roles.md for all roles.
SELECT eventstore_role('eventstore_migrator', ARRAY['eventstore_owner']);
SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_migrator');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE eventstore_migrations', 'eventstore_migrator');
SELECT eventstore_grant('EXECUTE ON FUNCTION eventstore_role, eventstore_set_owner, eventstore_grant', 'eventstore_migrator');
