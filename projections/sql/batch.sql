-- What a projection reads: the events of the open batch (see begin_batch), each share of the conversations from that
-- share's own checkpoint on, less the conversations that are parked. Made once in each session of a worker.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
  JOIN checkpoints c
    ON c.projection = current_setting('eventstore.projection')
   AND c.stage = current_setting('eventstore.stage')
   AND c.share = ANY (current_setting('eventstore.shares')::smallint[])
   AND c.share = share_of(e.conversation_id)
   AND c.position < e.position
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
