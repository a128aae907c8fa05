-- Enable row-level security on a table. It holds for all but superusers, even for the owner of the table.
--
-- The eraser may change the events of its tenant; the triggers of the table refuse all other changes.
--
-- Three roles see all rows, each only while it is the current user itself: the owner (whose functions append), the
-- projector and, in the tables that it searches, the search. A login that merely inherits one of them does not; if it
-- inherits the owner, reading without a tenant is an error.
--
-- All others see the rows of their tenant, by the column tenant_id; a user among them those of conversations of
-- which they are a member, by the column that holds the conversation's id. In a table without such a column a user sees
-- nothing, and in one without tenant_id nobody does but the three roles.
CREATE FUNCTION enable_rls(target regclass, conversation_column name DEFAULT 'conversation_id') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name  name;
    has_tenant  boolean := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = 'tenant_id');
BEGIN
    SELECT r.rolname INTO owner_name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
    PERFORM disable_rls(target);
    EXECUTE format('CREATE POLICY open_to_owner ON %s TO %I USING (is_current_role(%L)) WITH CHECK (is_current_role(%L))',
                   target, owner_name, owner_name, owner_name);
    -- It never holds; it raises the error.
    EXECUTE format('CREATE POLICY require_tenant ON %s FOR SELECT TO %I
                        USING (NOT (is_current_role(%L) OR (SELECT require_tenant())))', target, owner_name, owner_name);
    IF to_regrole('eventstore_projector') IS NOT NULL THEN
        EXECUTE format('CREATE POLICY open_to_projector ON %s TO eventstore_projector
                            USING (is_current_role(''eventstore_projector'')) WITH CHECK (is_current_role(''eventstore_projector''))', target);
    END IF;
    IF to_regrole('eventstore_search') IS NOT NULL
       AND target IN (to_regclass('events'), to_regclass('search_documents'), to_regclass('search_conversations')) THEN
        EXECUTE format('CREATE POLICY open_to_search ON %s FOR SELECT TO eventstore_search
                            USING (is_current_role(''eventstore_search''))', target);
    END IF;
    IF NOT has_tenant THEN
        RETURN;
    END IF;
    IF to_regrole('eventstore_eraser') IS NOT NULL AND target = to_regclass('events') THEN
        EXECUTE format('CREATE POLICY open_to_eraser ON %s FOR UPDATE TO eventstore_eraser USING (tenant_id = %s)',
                       target, rls_tenant());
    END IF;
    EXECUTE format('CREATE POLICY open_to_caller ON %s FOR SELECT USING (%s)', target, rls_condition(target, conversation_column));
END
$$;

SELECT eventstore_set_owner('FUNCTION enable_rls');
REVOKE ALL ON FUNCTION enable_rls FROM PUBLIC;
