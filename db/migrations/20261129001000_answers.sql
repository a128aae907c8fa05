-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: answers/answer_leases.sql
-- The process that is answering each message. A lease ends when its holder releases it, or some seconds after its
-- holder has last renewed it. A row, not an advisory lock: it survives a failover, a pooler and a broken connection,
-- and names its holder.
--
-- The lease alone does not guarantee a single answer: an answer expects the version of the conversation that its
-- process has seen, so if two processes both take themselves for the holder, one is refused. The lease makes that rare.
CREATE TABLE answer_leases (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    message_id      uuid NOT NULL,
    holder          uuid NOT NULL,
    expires_at      timestamptz NOT NULL,
    CONSTRAINT answer_leases_pkey PRIMARY KEY (tenant_id, conversation_id, message_id)
);

COMMENT ON TABLE answer_leases IS 'Messages that a process is answering';
COMMENT ON COLUMN answer_leases.holder IS 'Id that the manager has generated for itself';

SELECT eventstore_set_owner('TABLE answer_leases');
SELECT enable_rls('answer_leases');

-- file: answers/lease_answers.sql
-- Take the leases of messages, except those that another holder has and that have not expired. Returns the holder of
-- each, its expiry, and the version of its conversation, read after the lease was taken.
--
-- The three functions lock rows in the order of their keys, so that they do not deadlock. Leases need not be durable: a
-- message without its lease is leased again. If the transaction has written something before, they leave its durability
-- as it is.
CREATE FUNCTION lease_answers(
    tenant_id        text,
    conversation_ids uuid[],
    message_ids      uuid[],
    holder           uuid,
    seconds          double precision
) RETURNS TABLE (conversation_id uuid, message_id uuid, held_by uuid, expires_at timestamptz, version integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO answer_leases AS l (tenant_id, conversation_id, message_id, holder, expires_at)
    SELECT tenant_id, k.conversation_id, k.message_id, holder, clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     ORDER BY k.conversation_id, k.message_id
    ON CONFLICT ON CONSTRAINT answer_leases_pkey DO UPDATE
       SET holder = excluded.holder, expires_at = excluded.expires_at
     WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp();
    RETURN QUERY
    SELECT k.conversation_id, k.message_id, l.holder, l.expires_at, coalesce(h.version, 0)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
      JOIN answer_leases l
        ON l.tenant_id = lease_answers.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
      LEFT JOIN LATERAL (
               SELECT e.tenant_id, e.conversation_id, e.version
                 FROM events e
                WHERE (e.tenant_id, e.conversation_id, e.version)
                      <= (lease_answers.tenant_id, k.conversation_id, 2147483647)
                ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                LIMIT 1
           ) AS h
        ON h.tenant_id = lease_answers.tenant_id
       AND h.conversation_id = k.conversation_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION lease_answers');
REVOKE ALL ON FUNCTION lease_answers FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION lease_answers', 'eventstore_app');

-- file: answers/renew_answer_leases.sql
-- Renew leases of a holder, also expired ones that no other holder has taken, and return their messages. Delete leases
-- that ended a day ago without being released.
CREATE FUNCTION renew_answer_leases(
    tenant_id        text,
    conversation_ids uuid[],
    message_ids      uuid[],
    holder           uuid,
    seconds          double precision
) RETURNS TABLE (conversation_id uuid, message_id uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM
       FROM answer_leases l
      WHERE l.tenant_id = renew_answer_leases.tenant_id
        AND (l.holder = renew_answer_leases.holder OR l.expires_at < clock_timestamp() - interval '1 day')
      ORDER BY l.conversation_id, l.message_id
        FOR UPDATE;
    DELETE FROM answer_leases l
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.expires_at < clock_timestamp() - interval '1 day';
    RETURN QUERY
    UPDATE answer_leases AS l
       SET expires_at = clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
       AND l.holder = renew_answer_leases.holder
    RETURNING l.conversation_id, l.message_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION renew_answer_leases');
REVOKE ALL ON FUNCTION renew_answer_leases FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION renew_answer_leases', 'eventstore_app');

-- file: answers/release_answers.sql
-- End leases, as far as this holder still has them.
CREATE FUNCTION release_answers(tenant_id text, conversation_ids uuid[], message_ids uuid[], holder uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    DELETE FROM answer_leases l
     USING (
           SELECT o.conversation_id, o.message_id
             FROM answer_leases o
             JOIN unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
               ON o.conversation_id = k.conversation_id
              AND o.message_id = k.message_id
            WHERE o.tenant_id = release_answers.tenant_id
              AND o.holder = release_answers.holder
            ORDER BY o.conversation_id, o.message_id
              FOR UPDATE OF o
           ) AS locked
     WHERE l.tenant_id = release_answers.tenant_id
       AND l.conversation_id = locked.conversation_id
       AND l.message_id = locked.message_id
       AND l.holder = release_answers.holder;
END
$$;

SELECT eventstore_set_owner('FUNCTION release_answers');
REVOKE ALL ON FUNCTION release_answers FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION release_answers', 'eventstore_app');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION release_answers;
DROP FUNCTION renew_answer_leases;
DROP FUNCTION lease_answers;
DROP TABLE answer_leases;
