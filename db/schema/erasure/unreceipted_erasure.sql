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
