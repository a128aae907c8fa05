-- The role that reads the read tables, behind row-level security.
SELECT eventstore_role('eventstore_reader');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_reader');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_reader');
