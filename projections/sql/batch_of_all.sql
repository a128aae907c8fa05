-- What a projection reads when the log is replayed beside its live tables: of a parked conversation what stands before
-- the event that failed.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.position > current_setting('eventstore.lower_position')::bigint
   AND e.position <= current_setting('eventstore.upper_position')::bigint
   AND share_of(e.conversation_id) = ANY (current_setting('eventstore.shares')::smallint[])
   AND NOT EXISTS (
           SELECT
             FROM parked p
            WHERE p.projection = current_setting('eventstore.projection')
              AND p.stage = 'live'
              AND p.tenant_id = e.tenant_id
              AND p.conversation_id = e.conversation_id
              AND p.position <= e.position
       )
