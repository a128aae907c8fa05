-- The role that erases. It reads the log behind row-level security, and may turn events into their erased form and
-- nothing else. No other role may, not even the owner of the table. A login takes it by SET ROLE, and needs
-- eventstore_projector beside it, to fold the read tables again.
SELECT eventstore_role('eventstore_eraser');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_eraser');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_eraser');
