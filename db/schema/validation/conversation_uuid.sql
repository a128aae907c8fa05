-- The id of the conversation that a client calls by a text: the same as conversation_uuid in eventstore/ids.py.
CREATE FUNCTION conversation_uuid(tenant_id text, given_id text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    hash bytea;
BEGIN
    IF given_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        RETURN given_id::uuid;
    END IF;
    hash := sha1(
        '\x6c0a1f0e5a5b5d0c9a430f6f1d0b7f2e'
        || convert_to(format('12:conversation%s:%s%s:%s', length(tenant_id), tenant_id, length(given_id), given_id), 'UTF8')
    );
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    RETURN encode(substring(hash FROM 1 FOR 16), 'hex')::uuid;
END
$$;

SELECT eventstore_set_owner('FUNCTION conversation_uuid');
