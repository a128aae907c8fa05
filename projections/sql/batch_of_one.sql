-- What a projection reads when a parked conversation is tried again: its events alone.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = current_setting('eventstore.tenant')
   AND e.conversation_id = current_setting('eventstore.conversation')::uuid
   AND e.position > current_setting('eventstore.lower_position')::bigint
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
