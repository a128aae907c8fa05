-- The role of workers. It reads the log of all tenants and fills the read tables.
SELECT eventstore_role('eventstore_projector');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_projector');
SELECT eventstore_grant(format('TEMPORARY ON DATABASE %I', current_database()), 'eventstore_projector');
