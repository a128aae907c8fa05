-- name: as_of_events
-- A line is left out if its parameter is not given. The events up to a time are the versions up to the last that has one
-- not after it: the server's clock may have stepped back in between.
INSERT INTO batch (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                   content, metadata)
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version <= %(version)s
   AND e.position <= %(position)s
   AND e.version <= (SELECT max(l.version) FROM events l WHERE l.tenant_id = e.tenant_id AND l.conversation_id = e.conversation_id AND l.timestamp <= %(time)s)
 ORDER BY e.version

-- name: as_of_versions
-- The versions of the conversations that a text may name.
SELECT e.conversation_id, max(e.version)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = ANY (%(ids)s::uuid[])
 GROUP BY e.conversation_id

-- name: as_of_batch
-- The batch of a conversation as it was, in place of the view of the same name. An inline append may have left that view
-- in a session that a pooler lends; the rollback of this transaction restores it.
DROP VIEW IF EXISTS pg_temp.batch;

CREATE TEMPORARY TABLE batch (
    position        bigint,
    timestamp       timestamptz,
    version         integer,
    schema_version  smallint,
    conversation_id uuid,
    id              uuid,
    tenant_id       varchar(255) COLLATE "C",
    event_type      varchar(100) COLLATE "C",
    actor           varchar(255),
    content         jsonb,
    metadata        jsonb
)
