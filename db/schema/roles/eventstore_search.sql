-- The owner of search_for. Full text and row-level security do not go together: the operators are not leakproof, so the
-- index would not be used. This role sees the documents of all tenants, and search_for applies tenant and user itself.
SELECT eventstore_role('eventstore_search');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_search');
