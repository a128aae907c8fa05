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
DROP TRIGGER erasure_is_complete ON events;
DROP FUNCTION complete_erasure;
