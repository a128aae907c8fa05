-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: erasure/erased_content.sql
-- The content of an event once it is erased: what the structure of its conversation needs and nothing that anybody wrote.
-- It keeps ids that are UUIDs, numbers, truth values, and the known roles, statuses and outcomes. Members that replace
-- earlier values stay, empty, so that no earlier value shows again. A receipt of an erasure keeps what it names. Messages,
-- tasks and conversations are marked by the member "eventstore.erased" of their metadata. Nothing stays
-- of types that are not built in.
--
-- erases_members: whether the user with whom a conversation was shared is erased, too.
--
-- Erasing the result changes nothing.
CREATE FUNCTION erased_content(event_type text, content jsonb, erases_members boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    mark constant jsonb := '{"metadata": {"eventstore.erased": true}}';
    kept jsonb;
BEGIN
    IF jsonb_typeof(content) IS DISTINCT FROM 'object' THEN
        RETURN '{}';
    END IF;
    -- An expression without a query, which plpgsql evaluates in less time.
    kept := jsonb_strip_nulls(jsonb_build_object(
        'message_id', CASE WHEN json_member_is_uuid(content, 'message_id') THEN content -> 'message_id' END,
        'task_id', CASE WHEN json_member_is_uuid(content, 'task_id') THEN content -> 'task_id' END,
        'source_conversation_id',
        CASE WHEN json_member_is_uuid(content, 'source_conversation_id') THEN content -> 'source_conversation_id' END,
        'artifact_id', CASE WHEN json_member_is_uuid(content, 'artifact_id') THEN content -> 'artifact_id' END,
        'config_id', CASE WHEN json_member_is_uuid(content, 'config_id') THEN content -> 'config_id' END,
        'source_version',
        CASE WHEN jsonb_typeof(content -> 'source_version') = 'number' THEN content -> 'source_version' END,
        'awaits_answer', CASE WHEN jsonb_typeof(content -> 'awaits_answer') = 'boolean' THEN content -> 'awaits_answer' END,
        'last_chunk', CASE WHEN jsonb_typeof(content -> 'last_chunk') = 'boolean' THEN content -> 'last_chunk' END,
        'role', CASE WHEN content -> 'role' IN ('"user"', '"assistant"', '"system"', '"tool"') THEN content -> 'role' END,
        'status', CASE WHEN content -> 'status' IN ('"pending"', '"in_progress"', '"completed"', '"input-required"',
                                                    '"auth-required"', '"canceled"', '"failed"', '"rejected"')
                       THEN content -> 'status' END,
        'outcome', CASE WHEN content -> 'outcome' IN ('"answered"', '"failed"', '"abandoned"')
                        THEN content -> 'outcome' END
    ));
    CASE event_type
        WHEN 'message.added' THEN
            RETURN '{"role": "system"}' || kept
                   || CASE WHEN content ? 'parts' THEN '{"parts": []}'::jsonb ELSE '{"content": ""}' END || mark;
        WHEN 'message.answered' THEN
            RETURN kept;
        WHEN 'task.created' THEN
            RETURN '{"status": "unknown", "description": ""}' || kept || mark;
        WHEN 'task.status_changed' THEN
            RETURN '{"status": "unknown"}' || kept;
        WHEN 'task.described' THEN
            RETURN kept
                   || CASE WHEN content ? 'description' THEN '{"description": ""}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'extra' THEN '{"extra": {}}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'metadata' THEN mark ELSE '{}' END;
        WHEN 'task.artifact_added', 'task.artifact_extended' THEN
            RETURN '{"artifact_id": "erased", "parts": [], "last_chunk": true}' || kept || mark;
        WHEN 'task.cancel_requested', 'task.deleted' THEN
            RETURN kept;
        WHEN 'task.push_notification_set' THEN
            RETURN '{"config_id": "erased", "config": {}}' || kept;
        WHEN 'task.push_notification_deleted' THEN
            RETURN '{"config_id": "erased"}' || kept;
        WHEN 'conversation.created', 'conversation.forked' THEN
            RETURN kept || CASE WHEN content ? 'name' THEN '{"name": ""}'::jsonb ELSE '{}' END || mark;
        WHEN 'conversation.renamed' THEN
            RETURN '{"name": ""}';
        WHEN 'conversation.rewound' THEN
            RETURN CASE WHEN jsonb_typeof(content -> 'to_version') = 'number'
                        THEN jsonb_build_object('to_version', content -> 'to_version') ELSE '{}' END;
        WHEN 'conversation.erased', 'event.erased' THEN
            RETURN content - 'reason';
        WHEN 'conversation.shared', 'conversation.unshared' THEN
            RETURN kept
                   || CASE WHEN content ? 'user' AND NOT erases_members
                           THEN jsonb_build_object('user', content -> 'user') ELSE '{}' END
                   || CASE WHEN content -> 'access' IN ('"read"', '"write"')
                           THEN jsonb_build_object('access', content -> 'access') ELSE '{}' END;
        ELSE
            RETURN '{}';
    END CASE;
END
$$;

SELECT eventstore_set_owner('FUNCTION erased_content');

-- file: erasure/erased_metadata.sql
-- The metadata of an event once it is erased: when it happened, ids that are UUIDs and, unless erases_members, the owner
-- of the conversation. Erasing the result changes nothing.
CREATE FUNCTION erased_metadata(metadata jsonb, erases_members boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN metadata ? 'occurred_at'
            THEN jsonb_build_object('occurred_at', metadata -> 'occurred_at') ELSE '{}' END
    || CASE WHEN metadata ? 'eventstore.owner' AND NOT erases_members
            THEN jsonb_build_object('eventstore.owner', metadata -> 'eventstore.owner') ELSE '{}' END
    || CASE WHEN json_member_is_uuid(metadata, 'correlation_id')
            THEN jsonb_build_object('correlation_id', metadata -> 'correlation_id') ELSE '{}' END
    || CASE WHEN json_member_is_uuid(metadata, 'causation_id')
            THEN jsonb_build_object('causation_id', metadata -> 'causation_id') ELSE '{}' END;

SELECT eventstore_set_owner('FUNCTION erased_metadata');

-- file: erasure/check_erasure.sql
-- Raise an error if the transaction may not erase a conversation, or these versions of it. A user, if the transaction has
-- one, may erase the conversations that they own, and their own events in others.
CREATE FUNCTION check_erasure(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not erase events of the tenant %', quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    IF current_tenant_user() IS NOT NULL
       AND NOT EXISTS (SELECT FROM members_of(conversation_id) AS m WHERE m.user_id = current_tenant_user() AND m.access = 'own')
       AND (versions IS NULL
            OR EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = check_erasure.tenant_id
                      AND e.conversation_id = check_erasure.conversation_id
                      AND e.version <@ versions
                      AND e.actor <> current_tenant_user()
                      AND NOT (e.conversation_id = administration_id()
                               AND e.content ->> 'user' IS NOT DISTINCT FROM current_tenant_user())
               )) THEN
        RAISE EXCEPTION 'the user may not erase this of conversation %', conversation_id
            USING ERRCODE = 'ES007',
                  DETAIL = jsonb_build_object('conversation_id', conversation_id)::text;
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_erasure');
REVOKE ALL ON FUNCTION check_erasure FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_erasure', 'eventstore_eraser');

-- file: erasure/erase_events.sql
-- Erase events of a conversation: all of them if versions is null, none that is later than until. The digest stays and
-- the salt is destroyed, so the digest reveals nothing, and all proofs that were made with it hold. The lock of the
-- conversation is held until the end of the transaction, in which refold_conversation and append_erasure must follow.
--
-- Receipts of erasures are erased only if versions names them and members are erased, because the user who is named in
-- them is; erased_versions then has what they named, so that the new receipt takes their place. It is null if there is
-- nothing left to erase.
CREATE FUNCTION erase_events(
    tenant_id       text,
    conversation_id uuid,
    versions        int4multirange,
    until           timestamptz,
    erases_members  boolean,
    lock_wait_ms    integer,
    OUT erased_versions int4multirange,
    OUT erased_until    timestamptz,
    OUT events          bigint
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
BEGIN
    PERFORM refuse_old_snapshots();
    IF lock_wait_ms > 0 THEN
        PERFORM set_config('lock_timeout', lock_wait_ms::text, true);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    PERFORM check_erasure(tenant_id, conversation_id, versions);
    PERFORM set_config('eventstore.erases_members', erases_members::text, true);
    WITH erased AS (
        UPDATE events e
           SET salt = NULL -- the trigger makes the rest (refuse_change_of_events)
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND (versions IS NULL OR e.version <@ versions)
           AND (until IS NULL OR e.timestamp <= until)
           AND (e.event_type NOT IN ('conversation.erased', 'event.erased') OR erases_members AND versions IS NOT NULL)
           AND (e.salt IS NOT NULL
                OR erases_members AND (e.metadata ? 'eventstore.owner' OR e.content ? 'user'))
        RETURNING e.version, e.timestamp
    )
    SELECT range_agg(int4range(e.version, e.version, '[]')), max(e.timestamp), count(*)
      INTO erased_versions, erased_until, events
      FROM erased e;
    erased_versions := erased_versions + (
        SELECT coalesce(range_agg(int4range((r ->> 0)::integer, (r ->> 1)::integer, '[]')), '{}')
          FROM events e
         CROSS JOIN LATERAL jsonb_array_elements(e.content -> 'versions') AS r
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND e.event_type IN ('conversation.erased', 'event.erased')
           AND e.version <@ erased_versions
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION erase_events');
REVOKE ALL ON FUNCTION erase_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erase_events', 'eventstore_eraser');

-- file: erasure/append_erasure.sql
-- Append the receipt of an erasure to its conversation: who erased which versions, and why, but not what they held. It is
-- the last step of the erasure, so that readers of the log wait for an append, not for the whole erasure. It refuses to
-- name a version that is not erased.
--
-- is_whole: whether the conversation was erased up to here, not single events.
--
-- Removes members whose names were erased, and the stored responses to requests of the tenant, which repeat what was
-- written (idempotency_keys): a request that is repeated is then executed again, and finds what it wrote.
CREATE FUNCTION append_erasure(
    tenant_id       text,
    conversation_id uuid,
    event_id        uuid,
    versions        int4multirange,
    until           timestamptz,
    is_whole        boolean,
    erases_members  boolean,
    reason          text,
    actor           text,
    OUT "position"  bigint,
    OUT version     integer,
    OUT "timestamp" timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    allowed_tenant text := append_tenant();
    salt           bytea := uuid_send(gen_random_uuid());
    event_type     text := CASE WHEN is_whole THEN 'conversation.erased' ELSE 'event.erased' END;
    content        jsonb;
    head           record;
    must_notify    boolean;
BEGIN
    IF allowed_tenant <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    IF (SELECT count(*)
          FROM events e
         WHERE e.tenant_id = append_erasure.tenant_id
           AND e.conversation_id = append_erasure.conversation_id
           AND e.version <@ versions
           AND e.salt IS NULL)
       IS DISTINCT FROM (SELECT sum(upper(r) - lower(r)) FROM unnest(versions) AS r) THEN
        RAISE EXCEPTION 'the receipt names versions % of conversation %, which are not all erased', versions, conversation_id
            USING ERRCODE = 'ES005';
    END IF;
    IF erases_members THEN
        DELETE FROM conversation_members m
         WHERE m.tenant_id = append_erasure.tenant_id
           AND m.conversation_id = append_erasure.conversation_id
           AND NOT EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = append_erasure.tenant_id
                      AND e.conversation_id = append_erasure.conversation_id
                      AND (e.version = 1 AND e.metadata ->> 'eventstore.owner' = m.user_id
                           OR e.event_type IN ('conversation.shared', 'conversation.unshared')
                              AND e.content ->> 'user' = m.user_id)
               );
    END IF;
    DELETE FROM idempotency_keys k
     WHERE k.tenant_id = append_erasure.tenant_id
       AND k.status IS NOT NULL;

    must_notify := register_append();
    SELECT e.version, e.timestamp
      INTO head
      FROM events e
     WHERE e.tenant_id = append_erasure.tenant_id
       AND e.conversation_id = append_erasure.conversation_id
     ORDER BY e.version DESC
     LIMIT 1;
    position := nextval('events_position');
    version := head.version + 1;
    timestamp := event_timestamp(head.timestamp);
    content := jsonb_build_object(
        'versions', (SELECT jsonb_agg(jsonb_build_array(lower(r), upper(r) - 1) ORDER BY r) FROM unnest(versions) AS r),
        'until', to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'erases_members', erases_members,
        'reason', reason
    );
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, 1, conversation_id, event_id, tenant_id, event_type, actor, content, '{}', salt,
            event_digest(salt, position, timestamp, version, 1::smallint, conversation_id, event_id, tenant_id, event_type,
                         actor, content, '{}'));
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_erasure');
REVOKE ALL ON FUNCTION append_erasure FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_erasure', 'eventstore_eraser');

-- file: erasure/erasure_of_user.sql
-- Return what an erasure of a user has to erase that is not erased yet: the conversations that the user owns (versions is
-- null: the whole); and in those of others the events that the user caused, and those that name the user as the one
-- with whom it was shared; and the administrative acts of the user and on them. The registrations of agents belong to
-- the tenant and stay. Receipts of erasures that the user made are erased, too: those that take their place do not name
-- the user.
--
-- The table conversation_actors says in which conversations a user was active, up to its checkpoints; what follows, and
-- what is parked, is read from the log.
CREATE FUNCTION erasure_of_user(tenant_id text, user_id text)
RETURNS TABLE (conversation_id uuid, versions int4multirange, erases_members boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    tenant  text := tenant_id;
    erased  text := user_id;
    applied bigint := coalesce((SELECT min(c.position) FROM checkpoints c WHERE c.projection = 'actors' AND c.stage = 'live'), 0);
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> erased, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(erased), quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    RETURN QUERY
    SELECT m.conversation_id, NULL::int4multirange, true
      FROM conversation_members m
     WHERE m.tenant_id = tenant
       AND m.user_id = erased
       AND m.access = 'own';
    RETURN QUERY
    WITH active AS (
        SELECT a.conversation_id FROM conversation_actors a WHERE a.tenant_id = tenant AND a.actor = erased
         UNION
        SELECT p.conversation_id FROM parked p WHERE p.tenant_id = tenant AND p.projection = 'actors' AND p.stage = 'live'
         UNION
        SELECT e.conversation_id FROM events e WHERE e.position > applied AND e.tenant_id = tenant AND e.actor = erased
         UNION
        SELECT e.conversation_id
          FROM events e
         WHERE e.tenant_id = tenant
           AND e.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.content ->> 'user' = erased
    )
    SELECT s.conversation_id, range_agg(int4range(s.version, s.version, '[]')), s.names_user
      FROM (SELECT e.conversation_id, e.version,
                   e.is_receipt OR e.is_sharing AND e.content ->> 'user' = erased AS names_user
              FROM active a
              JOIN (SELECT e.*, e.event_type IN ('conversation.erased', 'event.erased') AS is_receipt,
                           e.event_type IN ('conversation.shared', 'conversation.unshared') AS is_sharing
                      FROM events e) AS e
                ON e.tenant_id = tenant
               AND e.conversation_id = a.conversation_id
             WHERE (e.actor = erased OR e.is_sharing AND e.content ->> 'user' = erased)
               AND e.event_type NOT IN ('agent.registered', 'agent.unregistered')
               AND e.conversation_id <> administration_id()
               AND (e.is_receipt
                    OR NOT EXISTS (
                           SELECT
                             FROM conversation_members m
                            WHERE m.tenant_id = tenant
                              AND m.conversation_id = a.conversation_id
                              AND m.user_id = erased
                              AND m.access = 'own'
                       ))) AS s
     GROUP BY s.conversation_id, s.names_user;
    RETURN QUERY
    SELECT e.conversation_id, range_agg(int4range(e.version, e.version, '[]')), true
      FROM events e
     WHERE e.tenant_id = tenant
       AND e.conversation_id = administration_id()
       AND e.salt IS NOT NULL
       AND (e.actor = erased OR e.content ->> 'user' = erased)
     GROUP BY e.conversation_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION erasure_of_user');
REVOKE ALL ON FUNCTION erasure_of_user FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erasure_of_user', 'eventstore_eraser');

-- file: erasure/erase_identity.sql
-- Delete a user from the directory, with their keys, and keep a salted hash of the id, by which the user is deleted from
-- a restored backup. Returns whether the user existed.
CREATE FUNCTION erase_identity(tenant_id text, user_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    salt    bytea := uuid_send(gen_random_uuid());
    existed boolean;
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> user_id, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(user_id), quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    DELETE FROM identity_keys k
     WHERE k.tenant_id = erase_identity.tenant_id
       AND k.user_id = erase_identity.user_id;
    DELETE FROM identity_users u
     WHERE u.tenant_id = erase_identity.tenant_id
       AND u.id = erase_identity.user_id;
    existed := FOUND;
    IF existed OR NOT EXISTS (
           SELECT
             FROM identity_erasures r
            WHERE r.tenant_id = erase_identity.tenant_id
              AND r.hash = sha256(r.salt || convert_to(user_id, 'UTF8'))) THEN
        INSERT INTO identity_erasures (tenant_id, salt, hash, erased_at)
        VALUES (erase_identity.tenant_id, salt, sha256(salt || convert_to(user_id, 'UTF8')), clock_timestamp());
    END IF;
    RETURN existed;
END
$$;

SELECT eventstore_set_owner('FUNCTION erase_identity');
REVOKE ALL ON FUNCTION erase_identity FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erase_identity', 'eventstore_eraser');

-- file: erasure/conversation_tables.sql
-- The tables of a stage that projections fill, and live ones that inline projections fill, which no worker knows. Each with
-- the column that holds the conversation's id; null if its rows do not belong to one conversation of one tenant.
CREATE FUNCTION conversation_tables(stage text)
RETURNS TABLE (projection text, name text, relation regclass, conversation_column name, has_version boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT d.projection, c.relname::text, c.oid::regclass,
           CASE WHEN columns.names @> '{tenant_id,conversation_id}' THEN 'conversation_id'
                WHEN columns.names @> '{tenant_id,id}' THEN 'id'
           END::name,
           columns.names @> '{version}'
      FROM pg_class c
     CROSS JOIN LATERAL (
               SELECT array_agg(a.attname::text) AS names
                 FROM pg_attribute a
                WHERE a.attrelid = c.oid
                  AND NOT a.attisdropped
                  AND (a.attname = 'tenant_id'
                       OR a.attname IN ('conversation_id', 'id') AND a.atttypid = 'uuid'::regtype
                       OR a.attname = 'version' AND a.atttypid = 'integer'::regtype)
           ) AS columns
      LEFT JOIN projection_definitions d
        ON d.stage = conversation_tables.stage
       AND c.relname::text = ANY (d.tables)
     WHERE c.relnamespace = to_regnamespace(quote_ident(stage_schema(conversation_tables.stage)))
       AND c.relkind = 'r'
       AND (d.projection IS NOT NULL
            OR conversation_tables.stage = 'live'
               AND columns.names @> '{tenant_id,conversation_id}'
               AND c.relname NOT IN ('events', 'conversation_members', 'parked', 'answer_leases', 'blobs')
               -- enable_rls has made it when the table was created (projections/custom_projections.py).
               AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'open_to_owner'));
END;

SELECT eventstore_set_owner('FUNCTION conversation_tables');
REVOKE ALL ON FUNCTION conversation_tables FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION conversation_tables', 'eventstore_projector');

-- file: erasure/refold_conversation.sql
-- Make the rows of a conversation again from the log, as erase_events has left it in this transaction: in the tables of all
-- projections, in every stage. It locks the conversation's checkpoint of each, in the order of their names, so no worker
-- applies its partition meanwhile, and a rebuild neither begins nor swaps. The current role is the projector's.
--
-- Returns a row for each projection that cannot do this: if it is written in Python or fails, its rows of the conversation
-- are removed, and the conversation is parked; if it has a table whose rows belong to no single conversation, only a
-- rebuild makes that again.
CREATE FUNCTION refold_conversation(tenant_id text, conversation_id uuid)
RETURNS TABLE (projection text, stage text, problem text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    path    text := current_setting('search_path');
    target  record;
    made    record;
    failed  record;
    applied bigint;
BEGIN
    LOCK TABLE projection_definitions IN SHARE MODE;
    PERFORM set_config('eventstore.tenant', tenant_id, true),
            set_config('eventstore.retried_conversation', conversation_id::text, true),
            set_config('eventstore.lower_position', '0', true);
    -- A copy, and its statistics: what the planner expects of a conversation is far too little for a long one, and then
    -- some statements of projections take a time that grows with the square of its length.
    EXECUTE $copy$
        CREATE TEMPORARY TABLE IF NOT EXISTS refolded_events (LIKE events) ON COMMIT DROP;
        TRUNCATE pg_temp.refolded_events;
        INSERT INTO pg_temp.refolded_events
        SELECT e.*
          FROM events e
         WHERE e.tenant_id = current_setting('eventstore.tenant')
           AND e.conversation_id = current_setting('eventstore.retried_conversation')::uuid;
        ANALYZE pg_temp.refolded_events (position, version, conversation_id, tenant_id, event_type);
    $copy$;
    EXECUTE $view$
        CREATE OR REPLACE TEMPORARY VIEW batch AS
        SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
               e.actor, e.content, e.metadata, e.salt, e.digest
          FROM pg_temp.refolded_events e
         WHERE e.position > current_setting('eventstore.lower_position')::bigint
           AND e.position <= current_setting('eventstore.upper_position')::bigint
           AND NOT EXISTS (
                   SELECT
                     FROM parked p
                    WHERE p.projection = current_setting('eventstore.projection')
                      AND p.stage = current_setting('eventstore.stage')
                      AND p.tenant_id = e.tenant_id
                      AND p.conversation_id = e.conversation_id
                      AND p.position <= e.position
               )
    $view$;
    FOR target IN
        SELECT t.relation, t.conversation_column FROM conversation_tables('live') AS t WHERE t.projection IS NULL
    LOOP
        EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
          USING tenant_id, conversation_id;
    END LOOP;
    FOR made IN
        SELECT d.projection, d.stage, d.text, d.tables FROM projection_definitions d ORDER BY d.projection, d.stage
    LOOP
        projection := made.projection;
        stage := made.stage;
        problem := NULL;
        -- The time tells readers who keep responses that rows have changed (tables_change_token).
        UPDATE checkpoints c
           SET updated_at = clock_timestamp()
         WHERE c.projection = made.projection
           AND c.stage = made.stage
           AND c.partition = partition_of(conversation_id)
        RETURNING c.position INTO applied;
        FOR target IN
            SELECT t.name, t.relation, t.conversation_column
              FROM conversation_tables(made.stage) AS t
             WHERE t.projection = made.projection
        LOOP
            IF target.conversation_column IS NULL THEN
                problem := format('the table %s has no columns tenant_id and conversation_id', target.name);
                CONTINUE;
            END IF;
            EXECUTE format('DELETE FROM %s WHERE tenant_id = $1 AND %I = $2', target.relation, target.conversation_column)
              USING tenant_id, conversation_id;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        PERFORM set_config('eventstore.projection', made.projection, true),
                set_config('eventstore.stage', made.stage, true),
                set_config('eventstore.upper_position', coalesce(applied, 0)::text, true),
                set_config('search_path', format('pg_temp, %I, %I', stage_schema(made.stage), stage_schema('live')), true);
        -- Its error may quote what is erased.
        DELETE FROM parked p
         WHERE p.projection = made.projection
           AND p.stage = made.stage
           AND p.tenant_id = refold_conversation.tenant_id
           AND p.conversation_id = refold_conversation.conversation_id
        RETURNING p.position INTO failed;
        FOR attempt IN 1 .. 3 LOOP
            BEGIN
                IF made.text IS NULL AND attempt < 3 THEN
                    RAISE EXCEPTION 'it is written in Python: eventstore parked retry applies the events again';
                ELSIF made.text IS NOT NULL THEN
                    EXECUTE made.text;
                END IF;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
                    RAISE;
                END IF;
                -- The conversation is parked where it was, then at its first event.
                problem := SQLERRM;
                INSERT INTO parked (projection, stage, tenant_id, conversation_id, position, version, event_id, event_type,
                                    sqlstate, error)
                SELECT made.projection, made.stage, e.tenant_id, e.conversation_id, e.position, e.version, e.id,
                       e.event_type, SQLSTATE, SQLERRM
                  FROM events e
                 WHERE e.tenant_id = refold_conversation.tenant_id
                   AND e.conversation_id = refold_conversation.conversation_id
                   AND e.position <= applied
                   AND (attempt > 1 OR failed.position IS NULL OR e.position = failed.position)
                 ORDER BY e.version
                 LIMIT 1
                    ON CONFLICT ON CONSTRAINT parked_pkey DO UPDATE
                    SET position = excluded.position, version = excluded.version, event_id = excluded.event_id,
                        event_type = excluded.event_type, sqlstate = excluded.sqlstate, error = excluded.error;
            END;
        END LOOP;
        IF problem IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$$;

SELECT eventstore_set_owner('FUNCTION refold_conversation');
REVOKE ALL ON FUNCTION refold_conversation FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION refold_conversation', 'eventstore_projector');

-- file: erasure/erasable_rows.sql
-- Return the numbers of events and rows of live read tables that an erasure changes or removes: those of a
-- conversation, or, unless versions is null, those that have these versions.
CREATE FUNCTION erasable_rows(tenant_id text, conversation_id uuid, versions int4multirange)
RETURNS TABLE (table_name text, rows bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    target record;
BEGIN
    table_name := 'events';
    rows := (SELECT count(*)
               FROM events e
              WHERE e.tenant_id = erasable_rows.tenant_id
                AND e.conversation_id = erasable_rows.conversation_id
                AND (versions IS NULL OR e.version <@ versions)
                AND e.event_type NOT IN ('conversation.erased', 'event.erased')
                AND e.salt IS NOT NULL);
    RETURN NEXT;
    FOR target IN SELECT * FROM conversation_tables('live') AS t ORDER BY t.name LOOP
        CONTINUE WHEN target.conversation_column IS NULL OR versions IS NOT NULL AND NOT target.has_version;
        table_name := target.name;
        EXECUTE format('SELECT count(*) FROM %s WHERE tenant_id = $1 AND %I = $2 AND ($3 IS NULL OR %s)', target.relation,
                       target.conversation_column, CASE WHEN target.has_version THEN 'version <@ $3' ELSE 'true' END)
           INTO rows USING tenant_id, conversation_id, versions;
        RETURN NEXT;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION erasable_rows');
REVOKE ALL ON FUNCTION erasable_rows FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erasable_rows', 'eventstore_projector');

-- file: erasure/unreceipted_erasure.sql
-- Return whether an event is marked as erased although no receipt names it, or has more than an erasure leaves.
--
-- The body is a text, which a dump leaves as it is: audit verify compares it.
CREATE FUNCTION unreceipted_erasure(event events) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT (event).salt IS NULL
           AND NOT (
                   (event).actor = ''
                   AND (event).content = erased_content((event).event_type, (event).content, false)
                   AND (event).metadata = erased_metadata((event).metadata, false)
                   AND EXISTS (
                           SELECT
                             FROM events r
                            CROSS JOIN LATERAL jsonb_array_elements(
                                      CASE WHEN jsonb_typeof(r.content -> 'versions') = 'array' THEN r.content -> 'versions' END
                                  ) AS named
                            WHERE r.tenant_id = (event).tenant_id
                              AND r.conversation_id = (event).conversation_id
                              AND r.event_type IN ('conversation.erased', 'event.erased')
                              AND r.salt IS NOT NULL
                              AND r.version > (event).version
                              AND to_jsonb((event).version) BETWEEN named -> 0 AND named -> 1
                       )
               )
$$;

SELECT eventstore_set_owner('FUNCTION unreceipted_erasure');
REVOKE ALL ON FUNCTION unreceipted_erasure FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION unreceipted_erasure', 'eventstore_projector');

-- file: erasure/pending_receipts.sql
-- The erasures of a transaction whose receipt must follow before it ends; empty outside of it. complete_erasure adds a row
-- for each conversation of a statement, and the trigger require_receipt removes it at the commit.
CREATE TABLE pending_receipts (
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    versions        int4multirange NOT NULL,
    last_version    integer NOT NULL,
    CONSTRAINT pending_receipts_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE pending_receipts IS 'Erasures of transactions that have not ended, until their receipts are appended';
COMMENT ON COLUMN pending_receipts.versions IS 'The events that a receipt must name';
COMMENT ON COLUMN pending_receipts.last_version IS 'Of the conversation; the receipt comes after it';

ALTER TABLE pending_receipts ENABLE ROW LEVEL SECURITY;

SELECT eventstore_set_owner('TABLE pending_receipts');

-- file: erasure/require_receipt.sql
-- Refuse to commit an erasure that no receipt names, whichever statements have made it.
CREATE FUNCTION require_receipt() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM pending_receipts p WHERE p.id = NEW.id;
    IF NOT NEW.versions <@ (
           SELECT coalesce(range_agg(int4range((v ->> 0)::integer, (v ->> 1)::integer, '[]')), '{}')
             FROM events r
            CROSS JOIN LATERAL jsonb_array_elements(r.content -> 'versions') AS v
            WHERE r.tenant_id = NEW.tenant_id
              AND r.conversation_id = NEW.conversation_id
              AND r.version > NEW.last_version
              AND r.event_type IN ('conversation.erased', 'event.erased')
              AND r.salt IS NOT NULL
       ) THEN
        RAISE EXCEPTION 'no receipt names the versions % of conversation % that were erased', NEW.versions, NEW.conversation_id
            USING ERRCODE = 'restrict_violation',
                  HINT = 'The command line and the HTTP API append the receipt with the erasure: docs/guides/erasure.md.';
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION require_receipt');
REVOKE ALL ON FUNCTION require_receipt FROM PUBLIC;

CREATE CONSTRAINT TRIGGER require_receipt
    AFTER INSERT ON pending_receipts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION require_receipt();

ALTER TABLE pending_receipts ENABLE ALWAYS TRIGGER require_receipt;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TRIGGER require_receipt ON pending_receipts;
DROP FUNCTION require_receipt;
DROP TABLE pending_receipts;
DROP FUNCTION unreceipted_erasure;
DROP FUNCTION erasable_rows;
DROP FUNCTION refold_conversation;
DROP FUNCTION conversation_tables;
DROP FUNCTION erase_identity;
DROP FUNCTION erasure_of_user;
DROP FUNCTION append_erasure;
DROP FUNCTION erase_events;
DROP FUNCTION check_erasure;
DROP FUNCTION erased_metadata;
DROP FUNCTION erased_content;
