-- Delete a user from the directory, with their keys, and keep a salted hash of the id, by which the user is deleted from
-- a restored backup. Returns whether the user existed.
CREATE FUNCTION erase_identity(tenant_id text, user_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    salt    bytea := uuid_send(gen_random_uuid());
    existed boolean;
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() OR coalesce(current_tenant_user() <> user_id, false) THEN
        RAISE EXCEPTION 'this transaction may not erase the user % of the tenant %', quote_nullable(user_id), quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'A user may erase themselves; an administrator of the tenant, all its users.';
    END IF;
    DELETE FROM identity_keys k
     WHERE k.tenant_id = erase_identity.tenant_id
       AND k.user_id = erase_identity.user_id;
    DELETE FROM identity_users u
     WHERE u.tenant_id = erase_identity.tenant_id
       AND u.id = erase_identity.user_id;
    existed := FOUND;
    IF existed OR NOT EXISTS (
           SELECT
             FROM identity_erasures r
            WHERE r.tenant_id = erase_identity.tenant_id
              AND r.hash = sha256(r.salt || convert_to(user_id, 'UTF8'))) THEN
        INSERT INTO identity_erasures (tenant_id, salt, hash, erased_at)
        VALUES (erase_identity.tenant_id, salt, sha256(salt || convert_to(user_id, 'UTF8')), clock_timestamp());
    END IF;
    RETURN existed;
END
$$;

SELECT eventstore_set_owner('FUNCTION erase_identity');
REVOKE ALL ON FUNCTION erase_identity FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erase_identity', 'eventstore_eraser');
