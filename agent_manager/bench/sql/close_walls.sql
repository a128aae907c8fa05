-- Give row-level security back to the tables that have policies.
DO $$
DECLARE
    secured regclass;
BEGIN
    FOR secured IN
        SELECT c.oid
          FROM pg_class c
         WHERE c.relnamespace = current_schema()::regnamespace
           AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', secured);
    END LOOP;
END
$$
