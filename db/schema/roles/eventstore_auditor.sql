-- The role that reads the log, behind row-level security.
SELECT eventstore_role('eventstore_auditor');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_auditor');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_auditor');
