-- The owner of all objects. Functions that append to the log run with its rights.
SELECT eventstore_role('eventstore_owner');
SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_owner');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_owner');
SELECT eventstore_grant('EXECUTE ON FUNCTION eventstore_role, eventstore_set_owner, eventstore_grant', 'eventstore_owner');
