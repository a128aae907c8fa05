-- The role of the service's logins. It becomes writer, reader or auditor by SET ROLE, one at a time, and has none of
-- their rights until then.
SELECT eventstore_role('eventstore_app', ARRAY['eventstore_writer', 'eventstore_reader', 'eventstore_auditor'],
                       inherits => false);
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_app');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_app');
