-- The role that appends events.
SELECT eventstore_role('eventstore_writer');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_writer');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_writer');
