-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: administration/record_identity_change.sql
-- Record every change of tenants, users, keys and bound logins as an administrative act, also those made in SQL. A
-- user's display name is left out, and so is the user's id if the user is deleted, which may be an erasure. The use of a
-- key is not a change. A change that has no name of its own, such as of a key's scopes, names its columns.
CREATE FUNCTION record_identity_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    kind    text := CASE TG_TABLE_NAME
                        WHEN 'identity_tenants' THEN 'tenant' WHEN 'identity_users' THEN 'user'
                        WHEN 'identity_keys' THEN 'key' ELSE 'login'
                    END;
    new_row jsonb := to_jsonb(NEW);
    old_row jsonb := to_jsonb(OLD);
    present jsonb := coalesce(new_row, old_row);
    member  text := CASE kind WHEN 'tenant' THEN 'suspended_at' WHEN 'user' THEN 'disabled_at' ELSE 'revoked_at' END;
    verb    text;
BEGIN
    IF kind = 'login' THEN
        IF old_row IS DISTINCT FROM new_row THEN
            PERFORM record_administrative_act(r.tenant_id, r.act, jsonb_build_object('login', r.login))
               FROM (VALUES (old_row ->> 'tenant_id', 'login_unbound', old_row ->> 'login'),
                            (new_row ->> 'tenant_id', 'login_bound', new_row ->> 'login')) AS r (tenant_id, act, login)
              WHERE r.tenant_id IS NOT NULL;
        END IF;
        RETURN NULL;
    END IF;
    verb := CASE
        WHEN TG_OP = 'INSERT' THEN 'added'
        WHEN TG_OP = 'DELETE' THEN 'deleted'
        WHEN old_row ->> member IS NULL AND new_row ->> member IS NOT NULL
            THEN CASE kind WHEN 'tenant' THEN 'suspended' WHEN 'user' THEN 'disabled' ELSE 'revoked' END
        WHEN old_row ->> member IS NOT NULL AND new_row ->> member IS NULL
            THEN CASE kind WHEN 'tenant' THEN 'resumed' WHEN 'user' THEN 'enabled' ELSE 'restored' END
        WHEN old_row ->> 'name' IS DISTINCT FROM new_row ->> 'name' THEN 'renamed'
        WHEN old_row - 'last_used_at' <> new_row - 'last_used_at' THEN 'changed'
    END;
    IF verb IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM record_administrative_act(
        t.tenant_id,
        kind || '_' || verb,
        CASE kind
            WHEN 'tenant' THEN jsonb_build_object('tenant', present -> 'id', 'name', present -> 'name')
            WHEN 'user' THEN jsonb_strip_nulls(jsonb_build_object('user', new_row -> 'id', 'kind', present -> 'kind'))
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'key', present -> 'id', 'name', new_row -> 'name', 'user', new_row -> 'user_id',
                     'scopes', new_row -> 'scopes', 'expires_at', new_row -> 'expires_at'))
        END
        || CASE WHEN verb = 'changed'
                THEN jsonb_build_object('columns', (SELECT jsonb_agg(n.key ORDER BY n.key)
                                                      FROM jsonb_each(new_row) AS n
                                                     WHERE n.value <> old_row -> n.key))
                ELSE '{}'
           END
    )
       FROM (SELECT r ->> CASE kind WHEN 'tenant' THEN 'id' ELSE 'tenant_id' END AS tenant_id
               FROM unnest(ARRAY[old_row, new_row]) AS r
              WHERE r IS NOT NULL
              GROUP BY 1) AS t;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_identity_change');
REVOKE ALL ON FUNCTION record_identity_change FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON identity_tenants
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON identity_users
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE
    OR UPDATE OF id, tenant_id, user_id, name, hash, scopes, created_at, expires_at, revoked_at ON identity_keys
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON bound_logins
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

-- file: administration/record_retention_change.sql
-- Record every change of legal holds and retention rules as an administrative act, also those made in SQL. The outcome of a
-- run is not a change of its rule.
CREATE FUNCTION record_retention_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    is_hold boolean := TG_TABLE_NAME = 'legal_holds';
    present jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    act     text := CASE TG_OP
                        WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'changed'
                        ELSE CASE WHEN is_hold THEN 'released' ELSE 'removed' END
                    END;
BEGIN
    PERFORM record_administrative_act(
        present ->> 'tenant_id',
        CASE WHEN is_hold THEN 'hold_' ELSE 'retention_rule_' END || act,
        CASE
            WHEN is_hold THEN jsonb_strip_nulls(jsonb_build_object(
                'hold', present -> 'id', 'conversation_id', present -> 'conversation_id', 'user', present -> 'user_id'))
            WHEN act = 'removed' THEN jsonb_build_object('rule', present -> 'id')
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'rule', present -> 'id', 'age_seconds', extract(epoch FROM (present ->> 'age')::interval),
                     'since', present -> 'since', 'state', present -> 'state', 'user', present -> 'user_id'))
                 || CASE present -> 'metadata' WHEN 'null' THEN '{}'
                         ELSE jsonb_build_object('metadata', present -> 'metadata') END
        END,
        CASE act WHEN 'added' THEN present ->> 'reason' END,
        CASE act WHEN 'added' THEN present ->> CASE WHEN is_hold THEN 'placed_by' ELSE 'added_by' END END);
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_retention_change');
REVOKE ALL ON FUNCTION record_retention_change FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON legal_holds
    FOR EACH ROW EXECUTE FUNCTION record_retention_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE OF tenant_id, id, age, since, state, user_id, metadata, reason, added_by, added_at
    ON retention_rules
    FOR EACH ROW EXECUTE FUNCTION record_retention_change();

-- file: administration/record_pause.sql
-- Record every pause of a projection, and its end, as an administrative act.
CREATE FUNCTION record_pause() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM record_administrative_act(NULL, r.act, jsonb_build_object('projection', r.projection))
       FROM (VALUES (CASE WHEN TG_OP <> 'INSERT' THEN OLD.projection END, 'projection_resumed'),
                    (CASE WHEN TG_OP <> 'DELETE' THEN NEW.projection END, 'projection_paused')) AS r (projection, act)
      WHERE r.projection IS NOT NULL;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_pause');
REVOKE ALL ON FUNCTION record_pause FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE OF projection ON paused_projections
    FOR EACH ROW EXECUTE FUNCTION record_pause();

-- file: administration/record_table_change.sql
-- Record what no trigger of rows records: that a table of administration was emptied by TRUNCATE, and that rows of
-- identity_erasures were changed or deleted, which name nobody.
CREATE FUNCTION record_table_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM record_administrative_act(
        NULL, CASE TG_OP WHEN 'TRUNCATE' THEN 'table_truncated' ELSE 'table_changed' END,
        jsonb_build_object('table', TG_TABLE_NAME));
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_table_change');
REVOKE ALL ON FUNCTION record_table_change FROM PUBLIC;

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_tenants
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_users
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_keys
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON bound_logins
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON legal_holds
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON retention_rules
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON paused_projections
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER changes_are_recorded
    AFTER UPDATE OR DELETE ON identity_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

-- file: administration/record_migration.sql
-- Record a migration of a log that has events; one of an empty log is part of its creation. Each migration calls it at its
-- end, in its own transaction (eventstore/database/dbmate.py); for one that has none it is called afterwards.
CREATE FUNCTION record_migration(version text, act text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM events) THEN
        PERFORM record_administrative_act(NULL, act, jsonb_build_object('version', version));
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_migration');
REVOKE ALL ON FUNCTION record_migration FROM PUBLIC;

-- file: administration/audit_trail.sql
-- The trail as auditors ask for it: who did what, when, why and through what. A row for each event that the current login
-- may see; row-level security is that of the log.
--
-- happened_at: when it happened, which may be before it was recorded (occurred_at).
-- reason: why, as an act, an erasure or a failure states it; causation_id: the event or request that caused it.
-- via: the program through which an administrator acted; login: its login.
CREATE VIEW audit_trail WITH (security_invoker = true) AS
SELECT e.tenant_id,
       e.position,
       e.timestamp AS recorded_at,
       occurred_at(e.metadata, e.timestamp) AS happened_at,
       e.actor,
       e.event_type AS action,
       e.conversation_id,
       e.version,
       e.id AS event_id,
       e.metadata ->> 'correlation_id' AS correlation_id,
       e.metadata ->> 'causation_id' AS causation_id,
       coalesce(e.content ->> 'reason', e.content ->> 'error') AS reason,
       e.metadata ->> 'via' AS via,
       e.metadata ->> 'login' AS login,
       e.content,
       e.metadata,
       encode(e.digest, 'hex') AS digest
  FROM events e;

COMMENT ON VIEW audit_trail IS 'Who did what, when, why and through what: the events that the login may see';

SELECT eventstore_set_owner('VIEW audit_trail');
SELECT eventstore_grant('SELECT ON TABLE audit_trail', 'eventstore_auditor', 'eventstore_projector');

-- file: administration/audit_acts.sql
-- The administrative acts that the current login may see: those of its tenant.
CREATE VIEW audit_acts WITH (security_invoker = true) AS
SELECT t.tenant_id, t.position, t.recorded_at, t.actor, substr(t.action, length('eventstore.') + 1) AS act, t.content AS details,
       t.reason, t.via, t.login
  FROM audit_trail t
 WHERE t.conversation_id = administration_id();

COMMENT ON VIEW audit_acts IS 'Administrative acts: keys, users, tenants, logins, rebuilds, restores, migrations';

SELECT eventstore_set_owner('VIEW audit_acts');
SELECT eventstore_grant('SELECT ON TABLE audit_acts', 'eventstore_auditor', 'eventstore_projector');

-- file: administration/audit_causes.sql
-- The cause of each event of a conversation that is another one of its events; null if it has none there.
--
-- An event names its cause (causation_id). Events of one answer all name the message that is answered; in between are their
-- task and, for a chunk, its artifact. A message that continues a task, and names
-- no cause, belongs to the task, and the outcome of a message to the message. A cause precedes its effects, so the causes
-- make trees.
CREATE FUNCTION audit_causes(tenant_id text, conversation_id uuid)
RETURNS TABLE (version integer, event_id uuid, cause_id uuid)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH facts AS MATERIALIZED (
        SELECT e.version, e.id, e.event_type, e.metadata ->> 'causation_id' AS cause,
               CASE WHEN starts_with(e.event_type, 'task.') THEN e.content ->> 'task_id' END AS task_id,
               CASE WHEN starts_with(e.event_type, 'task.artifact_') THEN e.content ->> 'artifact_id' END AS artifact_id,
               CASE e.event_type
                   WHEN 'message.added' THEN e.content #>> '{extra,taskId}'
                   WHEN 'task.created' THEN coalesce(e.content ->> 'given_id', e.content ->> 'task_id')
               END AS task_name,
               CASE WHEN e.event_type = 'message.answered' THEN e.content ->> 'message_id' END AS message_id
          FROM events e
         WHERE e.tenant_id = audit_causes.tenant_id
           AND e.conversation_id = audit_causes.conversation_id
    ),
    tasks AS (
        SELECT DISTINCT ON (f.task_id) f.task_id, f.task_name, f.version, f.id, f.cause
          FROM facts f
         WHERE f.task_id IS NOT NULL
         ORDER BY f.task_id, f.version
    ),
    artifacts AS (
        SELECT DISTINCT ON (f.task_id, f.artifact_id) f.task_id, f.artifact_id, f.version, f.id, f.cause
          FROM facts f
         WHERE f.event_type = 'task.artifact_added'
         ORDER BY f.task_id, f.artifact_id, f.version
    ),
    named AS (
        SELECT DISTINCT ON (f.version) f.version, f.id,
               CASE
                   WHEN f.message_id IS NOT NULL THEN f.message_id
                   WHEN a.version < f.version AND f.cause IS NOT DISTINCT FROM a.cause THEN a.id::text
                   WHEN t.id IS NOT NULL AND coalesce(f.cause = t.cause, f.cause IS NULL) THEN t.id::text
                   ELSE f.cause
               END AS cause
          FROM facts f
          LEFT JOIN artifacts a
            ON a.task_id = f.task_id
           AND a.artifact_id = f.artifact_id
          LEFT JOIN tasks t
            ON t.version < f.version
           AND (t.task_id = f.task_id
                OR f.event_type = 'message.added' AND f.task_name IN (t.task_id, t.task_name))
         ORDER BY f.version, t.version DESC
    )
    SELECT n.version, n.id, c.id
      FROM named n
      LEFT JOIN facts c
        ON c.id::text = n.cause
       AND c.version < n.version
     ORDER BY n.version;
END;

SELECT eventstore_set_owner('FUNCTION audit_causes');
REVOKE ALL ON FUNCTION audit_causes FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION audit_causes', 'eventstore_auditor', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION audit_causes;
DROP VIEW audit_acts;
DROP VIEW audit_trail;
DROP FUNCTION record_migration;
DROP TRIGGER changes_are_recorded ON identity_erasures;
DROP TRIGGER truncation_is_recorded ON paused_projections;
DROP TRIGGER truncation_is_recorded ON retention_rules;
DROP TRIGGER truncation_is_recorded ON legal_holds;
DROP TRIGGER truncation_is_recorded ON bound_logins;
DROP TRIGGER truncation_is_recorded ON identity_erasures;
DROP TRIGGER truncation_is_recorded ON identity_keys;
DROP TRIGGER truncation_is_recorded ON identity_users;
DROP TRIGGER truncation_is_recorded ON identity_tenants;
DROP FUNCTION record_table_change;
DROP TRIGGER changes_are_recorded ON paused_projections;
DROP FUNCTION record_pause;
DROP TRIGGER changes_are_recorded ON retention_rules;
DROP TRIGGER changes_are_recorded ON legal_holds;
DROP FUNCTION record_retention_change;
DROP TRIGGER changes_are_recorded ON bound_logins;
DROP TRIGGER changes_are_recorded ON identity_keys;
DROP TRIGGER changes_are_recorded ON identity_users;
DROP TRIGGER changes_are_recorded ON identity_tenants;
DROP FUNCTION record_identity_change;
