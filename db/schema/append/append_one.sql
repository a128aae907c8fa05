-- Append one event to one conversation, if it is plain: new, accepted, and neither one that shares the conversation nor
-- one that refers to files. Otherwise, and if it has to wait for the conversation, append_group appends it or finds the
-- reason.
CREATE FUNCTION append_one(
    tenant_id        text,
    conversation_id  uuid,
    expected_version integer,
    event_id         uuid,
    event_type       text,
    schema_version   smallint,
    actor            text,
    content          jsonb,
    metadata         jsonb,
    lock_wait_ms     integer,
    user_id          text,
    OUT outcome      "char",
    OUT "position"   bigint,
    OUT version      integer,
    OUT "timestamp"  timestamptz,
    OUT problem      text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    must_notify boolean;
BEGIN
    IF lock_wait_ms = 0 AND pg_try_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id)) THEN
        must_notify := register_append();

        -- From here on a statement sees everything that was committed to this conversation.
        INSERT INTO events AS e (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                                 event_type, actor, content, metadata, salt, digest)
        SELECT n.position, n.timestamp, n.version, schema_version, conversation_id, event_id, tenant_id,
               event_type, actor, content, n.metadata, n.salt,
               event_digest(n.salt, n.position, n.timestamp, n.version, schema_version, conversation_id, event_id,
                            tenant_id, event_type, actor, content, n.metadata)
          FROM (SELECT nextval('events_position') AS position, event_timestamp(head.timestamp) AS timestamp,
                       coalesce(head.version, 0) + 1 AS version, uuid_send(gen_random_uuid()) AS salt,
                       -- The log records the owner; see append_group.
                       CASE
                           WHEN head.version IS NULL AND user_id <> ''
                               THEN metadata || jsonb_build_object('eventstore.owner', user_id)
                           ELSE metadata
                       END AS metadata
                  FROM append_scope() AS scope
                  LEFT JOIN LATERAL (
                           SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
                             FROM events e
                            WHERE (e.tenant_id, e.conversation_id, e.version)
                                  <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
                            ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                            LIMIT 1
                       ) AS head
                    ON head.tenant_id = append_one.tenant_id
                   AND head.conversation_id = append_one.conversation_id
                 WHERE coalesce(scope.tenant_id = append_one.tenant_id, true)
                   AND validate_event(append_one.tenant_id, append_one.conversation_id, event_type, content, metadata)
                       IS NULL
                   AND user_id IS NOT NULL
                   AND event_type NOT IN ('conversation.shared', 'conversation.unshared')
                   AND NOT metadata ? 'eventstore.files'
                   AND CASE expected_version
                           WHEN -2 THEN true
                           WHEN -1 THEN head.version IS NOT NULL
                           ELSE expected_version = coalesce(head.version, 0)
                       END
                   AND CASE
                           WHEN head.version IS NULL THEN true
                           WHEN may_be_deleted(head.event_type)
                                AND conversation_is_deleted(head.tenant_id, head.conversation_id) THEN false
                           WHEN user_id <> '' AND NOT EXISTS (
                                    SELECT
                                      FROM may_append(head.tenant_id, head.conversation_id, user_id, event_type)
                                ) THEN false
                           ELSE true
                       END) AS n
        ON CONFLICT DO NOTHING
        RETURNING 'n', e.position, e.version, e.timestamp INTO outcome, position, version, timestamp;
        IF version = 1 THEN
            INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
            SELECT tenant_id, conversation_id, owner, 'own'
              FROM coalesce(nullif(user_id, ''), metadata ->> 'eventstore.owner') AS owner
             WHERE owner IS NOT NULL;
        END IF;
    END IF;
    IF outcome IS NULL THEN
        -- Under the locks that are held, so that this finds the same.
        SELECT g.outcomes[1], g.positions[1], g.versions[1], g.timestamps[1], g.problems[1]
          INTO outcome, position, version, timestamp, problem
          FROM append_group(
                   ARRAY[tenant_id], ARRAY[conversation_id], ARRAY[expected_version], ARRAY[1], ARRAY[1],
                   ARRAY[event_id], ARRAY[event_type], ARRAY[schema_version], ARRAY[actor], ARRAY[content],
                   ARRAY[metadata], ARRAY[user_id], lock_wait_ms
               ) AS g;
    ELSIF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_one');
REVOKE ALL ON FUNCTION append_one FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_one', 'eventstore_writer');
