-- Record every change of tenants, users, keys and bound logins as an administrative act, also those made in SQL. A
-- user's display name is left out, and so is the user's id if the user is deleted, which may be an erasure. The use of a
-- key is not a change. A change that has no name of its own, such as of a key's scopes, names its columns.
CREATE FUNCTION record_identity_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    kind    text := CASE TG_TABLE_NAME
                        WHEN 'identity_tenants' THEN 'tenant' WHEN 'identity_users' THEN 'user'
                        WHEN 'identity_keys' THEN 'key' ELSE 'login'
                    END;
    new_row jsonb := to_jsonb(NEW);
    old_row jsonb := to_jsonb(OLD);
    present jsonb := coalesce(new_row, old_row);
    member  text := CASE kind WHEN 'tenant' THEN 'suspended_at' WHEN 'user' THEN 'disabled_at' ELSE 'revoked_at' END;
    verb    text;
BEGIN
    IF kind = 'login' THEN
        IF old_row IS DISTINCT FROM new_row THEN
            PERFORM record_administrative_act(r.tenant_id, r.act, jsonb_build_object('login', r.login))
               FROM (VALUES (old_row ->> 'tenant_id', 'login_unbound', old_row ->> 'login'),
                            (new_row ->> 'tenant_id', 'login_bound', new_row ->> 'login')) AS r (tenant_id, act, login)
              WHERE r.tenant_id IS NOT NULL;
        END IF;
        RETURN NULL;
    END IF;
    verb := CASE
        WHEN TG_OP = 'INSERT' THEN 'added'
        WHEN TG_OP = 'DELETE' THEN 'deleted'
        WHEN old_row ->> member IS NULL AND new_row ->> member IS NOT NULL
            THEN CASE kind WHEN 'tenant' THEN 'suspended' WHEN 'user' THEN 'disabled' ELSE 'revoked' END
        WHEN old_row ->> member IS NOT NULL AND new_row ->> member IS NULL
            THEN CASE kind WHEN 'tenant' THEN 'resumed' WHEN 'user' THEN 'enabled' ELSE 'restored' END
        WHEN old_row ->> 'name' IS DISTINCT FROM new_row ->> 'name' THEN 'renamed'
        WHEN old_row - 'last_used_at' <> new_row - 'last_used_at' THEN 'changed'
    END;
    IF verb IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM record_administrative_act(
        t.tenant_id,
        kind || '_' || verb,
        CASE kind
            WHEN 'tenant' THEN jsonb_build_object('tenant', present -> 'id', 'name', present -> 'name')
            WHEN 'user' THEN jsonb_strip_nulls(jsonb_build_object('user', new_row -> 'id', 'kind', present -> 'kind'))
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'key', present -> 'id', 'name', new_row -> 'name', 'user', new_row -> 'user_id',
                     'scopes', new_row -> 'scopes', 'expires_at', new_row -> 'expires_at'))
        END
        || CASE WHEN verb = 'changed'
                THEN jsonb_build_object('columns', (SELECT jsonb_agg(n.key ORDER BY n.key)
                                                      FROM jsonb_each(new_row) AS n
                                                     WHERE n.value <> old_row -> n.key))
                ELSE '{}'
           END
    )
       FROM (SELECT r ->> CASE kind WHEN 'tenant' THEN 'id' ELSE 'tenant_id' END AS tenant_id
               FROM unnest(ARRAY[old_row, new_row]) AS r
              WHERE r IS NOT NULL
              GROUP BY 1) AS t;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_identity_change');
REVOKE ALL ON FUNCTION record_identity_change FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON identity_tenants
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON identity_users
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE
    OR UPDATE OF id, tenant_id, user_id, name, hash, scopes, created_at, expires_at, revoked_at ON identity_keys
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON bound_logins
    FOR EACH ROW EXECUTE FUNCTION record_identity_change();

-- migrate:down
DROP TRIGGER changes_are_recorded ON bound_logins;
DROP TRIGGER changes_are_recorded ON identity_keys;
DROP TRIGGER changes_are_recorded ON identity_users;
DROP TRIGGER changes_are_recorded ON identity_tenants;
DROP FUNCTION record_identity_change;
