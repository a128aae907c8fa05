-- The metadata of an event once it is erased: when it happened, ids that are UUIDs and, unless erases_members, the owner
-- of the conversation. Erasing the result changes nothing.
CREATE FUNCTION erased_metadata(metadata jsonb, erases_members boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
      FROM jsonb_each(erased_metadata.metadata) AS m
     WHERE m.key = 'occurred_at'
        OR m.key = 'eventstore.owner' AND NOT erased_metadata.erases_members
        OR m.key IN ('correlation_id', 'causation_id') AND json_member_is_uuid(erased_metadata.metadata, m.key);
END;

SELECT eventstore_set_owner('FUNCTION erased_metadata');
