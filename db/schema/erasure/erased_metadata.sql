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
