-- Lock the holds of a tenant until the transaction ends: exclusively to place one, shared to erase. So a hold stops
-- every erasure that has not ended when it is placed, and no erasure is in progress when it is confirmed.
CREATE FUNCTION lock_holds(tenant_id text, is_erasure boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    class integer := low_32_bits('legal_holds'::regclass::oid::bigint);
BEGIN
    IF is_erasure THEN
        PERFORM pg_advisory_xact_lock_shared(class, hashtext(tenant_id));
    ELSE
        PERFORM pg_advisory_xact_lock(class, hashtext(tenant_id));
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION lock_holds');
REVOKE ALL ON FUNCTION lock_holds FROM PUBLIC;
