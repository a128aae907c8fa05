-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: retention/legal_holds.sql
-- Legal holds: what must not be erased, neither on request nor by a rule. A hold is on a conversation, on a user (the
-- conversations that they own, and those with events that they caused), or on the whole tenant. Only place_hold and
-- release_hold write here; a trigger records each change as an administrative act. A hold that was released is deleted;
-- the acts keep the record.
CREATE TABLE legal_holds (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    id              uuid NOT NULL,
    conversation_id uuid,
    user_id         varchar(255) COLLATE "C",
    reason          text NOT NULL,
    placed_by       varchar(255) NOT NULL,
    placed_at       timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT legal_holds_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT legal_holds_subject_check CHECK (num_nonnulls(conversation_id, user_id) <= 1 AND user_id <> ''),
    CONSTRAINT legal_holds_reason_check CHECK (reason <> '')
);

COMMENT ON TABLE legal_holds IS 'What must not be erased; written by place_hold and release_hold alone';
COMMENT ON COLUMN legal_holds.conversation_id IS 'The conversation; null: a user, or the whole tenant';
COMMENT ON COLUMN legal_holds.user_id IS 'The user; null: a conversation, or the whole tenant';

ALTER TABLE legal_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON legal_holds
    USING ((SELECT NOT login_is_bound()) OR tenant_id = (SELECT current_tenant()));

SELECT eventstore_set_owner('TABLE legal_holds');
SELECT eventstore_grant('SELECT ON TABLE legal_holds', 'eventstore_app');

-- file: retention/retention_rules.sql
-- Rules by which conversations are erased when they are old enough: each conversation of the tenant that matches all
-- conditions of a rule. Only add_retention_rule, remove_retention_rule and record_retention_run write here; a trigger
-- records each change as an administrative act.
CREATE TABLE retention_rules (
    tenant_id  varchar(255) COLLATE "C" NOT NULL,
    id         uuid NOT NULL,
    age        interval NOT NULL,
    since      text NOT NULL,
    state      text,
    user_id    varchar(255) COLLATE "C",
    metadata   jsonb,
    reason     text NOT NULL,
    added_by   varchar(255) NOT NULL,
    added_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    applied_at timestamptz,
    outcome    jsonb,
    CONSTRAINT retention_rules_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT retention_rules_age_check CHECK (age > '0'),
    CONSTRAINT retention_rules_since_check CHECK (since IN ('last_event', 'creation')),
    CONSTRAINT retention_rules_state_check CHECK (state IN ('active', 'archived', 'deleted')),
    CONSTRAINT retention_rules_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
);

COMMENT ON TABLE retention_rules IS 'Rules by which old conversations are erased; written by functions alone';
COMMENT ON COLUMN retention_rules.since IS 'From when the age counts: last_event, or creation of the conversation';
COMMENT ON COLUMN retention_rules.state IS 'Only conversations in this state: active, archived or deleted; null: any';
COMMENT ON COLUMN retention_rules.user_id IS 'Only conversations that this user owns; null: of any user';
COMMENT ON COLUMN retention_rules.metadata IS 'Only conversations whose metadata contain these; null: any';
COMMENT ON COLUMN retention_rules.applied_at IS 'Begin of the last run; null: there was none yet';
COMMENT ON COLUMN retention_rules.outcome IS 'Counts of the last run: conversations, events, held, skipped, failed';

ALTER TABLE retention_rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON retention_rules
    USING ((SELECT NOT login_is_bound()) OR tenant_id = (SELECT current_tenant()));

SELECT eventstore_set_owner('TABLE retention_rules');
SELECT eventstore_grant('SELECT ON TABLE retention_rules', 'eventstore_app');

-- file: retention/lock_holds.sql
-- Lock the holds of a tenant until the transaction ends: exclusively to place one, shared to erase. So a hold stops
-- every erasure that has not ended when it is placed, and no erasure is in progress when it is confirmed.
CREATE FUNCTION lock_holds(tenant_id text, is_erasure boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    class integer := low_32_bits('legal_holds'::regclass::oid::bigint);
BEGIN
    IF is_erasure THEN
        PERFORM pg_advisory_xact_lock_shared(class, hashtext(tenant_id));
    ELSE
        PERFORM pg_advisory_xact_lock(class, hashtext(tenant_id));
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION lock_holds');
REVOKE ALL ON FUNCTION lock_holds FROM PUBLIC;

-- file: retention/holds_on.sql
-- The holds on events of a conversation.
--
-- first_version: of the events. A hold on a fork covers what the fork shares with the conversations that it continues,
-- up to the versions that it shows of them; the log tells these, whatever the read tables have.
-- actors: who caused the events.
CREATE FUNCTION holds_on(tenant_id text, conversation_id uuid, first_version integer, actors text[])
RETURNS SETOF legal_holds
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH RECURSIVE covered AS (
        (SELECT h.id, h.conversation_id, 2147483647 AS last_version, ARRAY[h.conversation_id] AS path
           FROM legal_holds h
          WHERE h.tenant_id = holds_on.tenant_id
            AND h.conversation_id IS NOT NULL
          UNION ALL
         SELECT h.id, m.conversation_id, 2147483647, ARRAY[m.conversation_id]
           FROM legal_holds h
           JOIN conversation_members m
             ON m.tenant_id = h.tenant_id
            AND m.user_id = h.user_id
            AND m.access = 'own'
          WHERE h.tenant_id = holds_on.tenant_id)
         UNION ALL
        SELECT c.id, s.conversation_id, s.version, c.path || s.conversation_id
          FROM covered c
         CROSS JOIN LATERAL (
                   SELECT (e.content ->> 'source_conversation_id')::uuid AS conversation_id,
                          (e.content ->> 'source_version')::integer AS version
                     FROM events e
                    WHERE e.tenant_id = holds_on.tenant_id
                      AND e.conversation_id = c.conversation_id
                      AND e.version = 1
                      AND e.event_type = 'conversation.forked'
                   OFFSET 0
               ) AS s
         WHERE s.conversation_id <> ALL (c.path)
    )
    SELECT h.*
      FROM legal_holds h
     WHERE h.tenant_id = holds_on.tenant_id
       AND (h.conversation_id IS NULL AND h.user_id IS NULL
            OR h.user_id = ANY (holds_on.actors)
            OR EXISTS (SELECT
                         FROM covered c
                        WHERE c.id = h.id
                          AND c.conversation_id = holds_on.conversation_id
                          AND c.last_version >= holds_on.first_version))
     ORDER BY h.placed_at, h.id;
END;

SELECT eventstore_set_owner('FUNCTION holds_on');
REVOKE ALL ON FUNCTION holds_on FROM PUBLIC;

-- file: retention/refuse_held.sql
-- Raise the error of an erasure if a hold is on the events; see holds_on. The lock is taken before the query: a hold that
-- was placed before this statement is found, and none can be placed from here to the end of the transaction.
CREATE FUNCTION refuse_held(tenant_id text, conversation_id uuid, first_version integer, actors text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found legal_holds;
BEGIN
    PERFORM lock_holds(refuse_held.tenant_id, true);
    SELECT h.*
      INTO found
      FROM holds_on(refuse_held.tenant_id, refuse_held.conversation_id, refuse_held.first_version, refuse_held.actors) AS h
     LIMIT 1;
    IF found.id IS NOT NULL THEN
        RAISE EXCEPTION 'the legal hold % forbids the erasure', found.id
            USING ERRCODE = 'ES010',
                  DETAIL = jsonb_build_object('id', found.id, 'conversation_id', found.conversation_id,
                                              'user', found.user_id, 'reason', found.reason)::text,
                  HINT = 'Release the hold first, if it is not needed any more.';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_held');
REVOKE ALL ON FUNCTION refuse_held FROM PUBLIC;

-- file: retention/check_holds.sql
-- Raise the error of an erasure if a hold is on a conversation, or, unless versions is null, on these events of it. The
-- erasure checks it again itself (complete_erasure).
CREATE FUNCTION check_holds(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF check_holds.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds.tenant_id, check_holds.conversation_id, min(e.version),
                        array_agg(DISTINCT e.actor::text))
       FROM events e
      WHERE e.tenant_id = check_holds.tenant_id
        AND e.conversation_id = check_holds.conversation_id
        AND (check_holds.versions IS NULL OR e.version <@ check_holds.versions)
     HAVING count(*) > 0;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_holds');
REVOKE ALL ON FUNCTION check_holds FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_holds', 'eventstore_eraser');

-- file: retention/check_holds_of_user.sql
-- Raise the error of an erasure if a hold is on a user, or on anything that an erasure of the user would erase; so that
-- nothing of it is erased then.
CREATE FUNCTION check_holds_of_user(tenant_id text, user_id text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF check_holds_of_user.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds_of_user.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds_of_user.tenant_id, NULL, 1, ARRAY[check_holds_of_user.user_id]);
    PERFORM check_holds(check_holds_of_user.tenant_id, u.conversation_id, u.versions)
       FROM erasure_of_user(check_holds_of_user.tenant_id, check_holds_of_user.user_id) AS u;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_holds_of_user');
REVOKE ALL ON FUNCTION check_holds_of_user FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_holds_of_user', 'eventstore_eraser');

-- file: retention/place_hold.sql
-- Place a hold on a conversation, on a user, or on the whole tenant if both are null; see legal_holds. Erasures that are
-- in progress end before. Returns no row if the conversation does not exist. If the hold is there already, nothing changes.
CREATE FUNCTION place_hold(tenant_id text, id uuid, conversation_id uuid, user_id text, reason text, actor text)
RETURNS SETOF legal_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> place_hold.tenant_id THEN
        PERFORM refuse_tenant(place_hold.tenant_id);
    END IF;
    PERFORM lock_holds(place_hold.tenant_id, false);
    IF place_hold.conversation_id IS NOT NULL AND NOT EXISTS (
           SELECT
             FROM events e
            WHERE e.tenant_id = place_hold.tenant_id
              AND e.conversation_id = place_hold.conversation_id) THEN
        RETURN;
    END IF;
    INSERT INTO legal_holds (tenant_id, id, conversation_id, user_id, reason, placed_by)
    VALUES (place_hold.tenant_id, place_hold.id, place_hold.conversation_id, place_hold.user_id,
            place_hold.reason, place_hold.actor)
        ON CONFLICT ON CONSTRAINT legal_holds_pkey DO NOTHING;
    RETURN QUERY
    SELECT h.* FROM legal_holds h WHERE h.tenant_id = place_hold.tenant_id AND h.id = place_hold.id;
END
$$;

SELECT eventstore_set_owner('FUNCTION place_hold');
REVOKE ALL ON FUNCTION place_hold FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION place_hold', 'eventstore_app');

-- file: retention/release_hold.sql
-- Release a hold. Returns it; no row if the tenant has no such hold.
CREATE FUNCTION release_hold(tenant_id text, id uuid, reason text, actor text) RETURNS SETOF legal_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> release_hold.tenant_id THEN
        PERFORM refuse_tenant(release_hold.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.reason', release_hold.reason, true) WHERE release_hold.reason <> '';
    PERFORM set_config('eventstore.actor', release_hold.actor, true) WHERE release_hold.actor <> '';
    RETURN QUERY
    DELETE FROM legal_holds h
     WHERE h.tenant_id = release_hold.tenant_id
       AND h.id = release_hold.id
    RETURNING h.*;
END
$$;

SELECT eventstore_set_owner('FUNCTION release_hold');
REVOKE ALL ON FUNCTION release_hold FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION release_hold', 'eventstore_app');

-- file: retention/add_retention_rule.sql
-- Add a rule; see retention_rules. If it is there already, nothing changes.
CREATE FUNCTION add_retention_rule(
    tenant_id text,
    id        uuid,
    age       interval,
    since     text,
    state     text,
    user_id   text,
    metadata  jsonb,
    reason    text,
    actor     text
) RETURNS retention_rules
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    added retention_rules;
BEGIN
    IF append_tenant() <> add_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(add_retention_rule.tenant_id);
    END IF;
    INSERT INTO retention_rules (tenant_id, id, age, since, state, user_id, metadata, reason, added_by)
    VALUES (tenant_id, id, age, since, state, user_id, metadata, reason, actor)
        ON CONFLICT ON CONSTRAINT retention_rules_pkey DO NOTHING;
    SELECT r.*
      INTO added
      FROM retention_rules r
     WHERE r.tenant_id = add_retention_rule.tenant_id
       AND r.id = add_retention_rule.id;
    RETURN added;
END
$$;

SELECT eventstore_set_owner('FUNCTION add_retention_rule');
REVOKE ALL ON FUNCTION add_retention_rule FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION add_retention_rule', 'eventstore_app');

-- file: retention/remove_retention_rule.sql
-- Remove a rule. Returns it; no row if the tenant has no such rule.
CREATE FUNCTION remove_retention_rule(tenant_id text, id uuid, actor text) RETURNS SETOF retention_rules
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> remove_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(remove_retention_rule.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.actor', remove_retention_rule.actor, true) WHERE remove_retention_rule.actor <> '';
    RETURN QUERY
    DELETE FROM retention_rules r
     WHERE r.tenant_id = remove_retention_rule.tenant_id
       AND r.id = remove_retention_rule.id
    RETURNING r.*;
END
$$;

SELECT eventstore_set_owner('FUNCTION remove_retention_rule');
REVOKE ALL ON FUNCTION remove_retention_rule FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION remove_retention_rule', 'eventstore_app');

-- file: retention/record_retention_run.sql
-- Record a run of the rules of a tenant: the receipt, an administrative act with its counts; and with each rule of it, when
-- it began and its outcome.
CREATE FUNCTION record_retention_run(tenant_id text, began_at timestamptz, actor text, receipt jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> record_retention_run.tenant_id THEN
        PERFORM refuse_tenant(record_retention_run.tenant_id);
    END IF;
    UPDATE retention_rules r
       SET applied_at = record_retention_run.began_at,
           outcome    = o.outcome - 'rule'
      FROM jsonb_array_elements(record_retention_run.receipt -> 'rules') AS o (outcome)
     WHERE r.tenant_id = record_retention_run.tenant_id
       AND r.id = (o.outcome ->> 'rule')::uuid;
    PERFORM record_administrative_act(
        record_retention_run.tenant_id, 'retention_run', record_retention_run.receipt,
        actor => record_retention_run.actor);
END
$$;

SELECT eventstore_set_owner('FUNCTION record_retention_run');
REVOKE ALL ON FUNCTION record_retention_run FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION record_retention_run', 'eventstore_app');

-- file: retention/due_conversations.sql
-- A page of the conversations that a rule erases now, by the time that counts, with their versions; see retention_rules.
-- Conversations that are completely erased are left out: their last event is the receipt. hold is one that protects the
-- conversation, as far as the read tables show who caused its events; the erasure itself reads the log.
--
-- A client may have given a time in the future; then the time of the append counts. A conversation that a fork continues
-- is in use as long as the fork is, because reads of the fork begin with it; but no conversation outlasts its age since
-- its creation.
--
-- The tables are named in a text: a rebuild replaces them, and each order has an index of its own.
CREATE FUNCTION due_conversations(tenant_id text, rule uuid, after_time timestamptz, after_id uuid, maximum integer)
RETURNS TABLE (conversation_id uuid, version integer, counted_from timestamptz, hold uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
    found retention_rules;
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    SELECT r.*
      INTO found
      FROM retention_rules r
     WHERE r.tenant_id = due_conversations.tenant_id
       AND r.id = rule;
    RETURN QUERY EXECUTE format(
        $query$
        WITH RECURSIVE continued AS (
            SELECT (c.forked_from ->> 'conversation_id')::uuid AS id
              FROM conversations c
             WHERE %2$L = 'last_event'
               AND c.tenant_id = $1
               AND c.forked_from IS NOT NULL
               AND c.updated_at > $4
               AND NOT c.is_deleted
             UNION
            SELECT (c.forked_from ->> 'conversation_id')::uuid
              FROM continued s
              JOIN conversations c
                ON c.tenant_id = $1
               AND c.id = s.id
             WHERE c.forked_from IS NOT NULL
        )
        SELECT due.id, due.version, due.time,
               (SELECT h.id
                  FROM holds_on($1, due.id, 1, ARRAY(SELECT a.actor::text
                                                       FROM conversation_actors a
                                                      WHERE a.tenant_id = $1
                                                        AND a.conversation_id = due.id)) AS h
                 LIMIT 1)
          FROM (SELECT c.id, c.version, c.%1$I AS time
          FROM conversations c
         WHERE c.tenant_id = $1
           AND (c.%1$I, c.id) > ($2, $3)
           AND (c.%1$I <= $4
                OR c.%1$I > now()
                   AND $4 >= (SELECT e.timestamp
                                FROM events e
                               WHERE e.tenant_id = c.tenant_id
                                 AND e.conversation_id = c.id
                               ORDER BY e.version %3$s
                               LIMIT 1))
           AND ($5 IS NULL
                OR CASE WHEN c.is_deleted THEN 'deleted' WHEN c.is_active THEN 'active' ELSE 'archived' END = $5)
           AND ($6 IS NULL OR c.metadata @> $6)
           AND ($7 IS NULL
                OR EXISTS (SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = c.tenant_id
                              AND m.conversation_id = c.id
                              AND m.user_id = $7
                              AND m.access = 'own'))
           AND c.id NOT IN (SELECT s.id FROM continued s WHERE s.id IS NOT NULL)
           AND 'conversation.erased' <> (SELECT e.event_type
                                           FROM events e
                                          WHERE e.tenant_id = c.tenant_id
                                            AND e.conversation_id = c.id
                                          ORDER BY e.version DESC
                                          LIMIT 1)
         ORDER BY c.%1$I, c.id
         LIMIT $8) AS due
         ORDER BY due.time, due.id
        $query$,
        CASE found.since WHEN 'creation' THEN 'created_at' ELSE 'updated_at' END,
        found.since,
        CASE found.since WHEN 'creation' THEN 'ASC' ELSE 'DESC' END)
    USING tenant_id, after_time, after_id, clock_timestamp() - found.age, found.state, found.metadata, found.user_id,
          maximum;
END
$$;

SELECT eventstore_set_owner('FUNCTION due_conversations');
REVOKE ALL ON FUNCTION due_conversations FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION due_conversations', 'eventstore_app');

-- file: retention/complete_erasure.sql
-- Complete an erasure of events, in the same statement: refuse it if a legal hold is on one of them; require a
-- receipt of them in the same transaction, and of what erased receipts had named; and delete the files that nothing
-- else refers to. As a trigger it holds for every erasure, whichever function makes it.
CREATE FUNCTION complete_erasure() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM refuse_held(o.tenant_id, o.conversation_id, min(o.version), array_agg(DISTINCT o.actor::text))
       FROM old_events o
      GROUP BY o.tenant_id, o.conversation_id;
    INSERT INTO pending_receipts (tenant_id, conversation_id, versions, last_version)
    SELECT o.tenant_id, o.conversation_id,
           range_agg(int4range(o.version, o.version, '[]'))
           + coalesce(range_agg((SELECT range_agg(int4range((v ->> 0)::integer, (v ->> 1)::integer, '[]'))
                                   FROM jsonb_array_elements(o.content -> 'versions') AS v))
                          FILTER (WHERE o.event_type IN ('conversation.erased', 'event.erased')), '{}'),
           (SELECT max(e.version)
              FROM events e
             WHERE e.tenant_id = o.tenant_id
               AND e.conversation_id = o.conversation_id)
      FROM old_events o
     GROUP BY o.tenant_id, o.conversation_id;
    PERFORM delete_unreferenced_files(array_agg(f.tenant_id::text), array_agg(f.conversation_id), array_agg(f.sha256))
       FROM (SELECT DISTINCT o.tenant_id, o.conversation_id,
                    decode(jsonb_array_elements_text(o.metadata -> 'eventstore.files'), 'hex') AS sha256
               FROM old_events o
              WHERE o.metadata ? 'eventstore.files') AS f
     HAVING count(*) > 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER erasure_is_complete
    AFTER UPDATE ON events REFERENCING OLD TABLE AS old_events
    FOR EACH STATEMENT EXECUTE FUNCTION complete_erasure();

ALTER TABLE events ENABLE ALWAYS TRIGGER erasure_is_complete;

SELECT eventstore_set_owner('FUNCTION complete_erasure');
REVOKE ALL ON FUNCTION complete_erasure FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TRIGGER erasure_is_complete ON events;
DROP FUNCTION complete_erasure;
DROP FUNCTION due_conversations;
DROP FUNCTION record_retention_run;
DROP FUNCTION remove_retention_rule;
DROP FUNCTION add_retention_rule;
DROP FUNCTION release_hold;
DROP FUNCTION place_hold;
DROP FUNCTION check_holds_of_user;
DROP FUNCTION check_holds;
DROP FUNCTION refuse_held;
DROP FUNCTION holds_on;
DROP FUNCTION lock_holds;
DROP TABLE retention_rules;
DROP TABLE legal_holds;
