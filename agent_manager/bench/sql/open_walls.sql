-- Take row-level security away from the tables that have it.
DO $$
DECLARE
    secured regclass;
BEGIN
    FOR secured IN
        SELECT c.oid FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relrowsecurity
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', secured);
    END LOOP;
END
$$
