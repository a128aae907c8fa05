-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: log/events_position.sql
-- The positions of the log. CACHE 1 is required: the gate compares positions with last_value (docs/concepts/order.md).
CREATE SEQUENCE events_position AS bigint CACHE 1;

SELECT eventstore_set_owner('SEQUENCE events_position');

-- file: log/refuse_change_of_events.sql
-- Raise the error of a change of the log, or of the tables that seal it. Its triggers are ENABLE ALWAYS: they also fire
-- for superusers and under session_replication_role = replica, which skips ordinary triggers; the one at statement level
-- also fires if a statement changes no rows.
--
-- The one change of an event that it makes is its erasure, by the role eventstore_eraser; if the schema was migrated
-- without roles, by the owner of the table. Such a statement sets the salt to null and nothing else, and the event then
-- takes its erased form (erased_content, erased_metadata): what an erased event holds is not for the statement to say.
-- The setting eventstore.erases_members tells which of the two forms that is.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    erases_members boolean;
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'events'
       AND (CASE
                WHEN current_user = 'eventstore_eraser' THEN true
                WHEN has_column_privilege(to_regrole('eventstore_eraser')::oid, TG_RELID, 'salt', 'UPDATE') THEN false
                ELSE current_user = (SELECT r.rolname
                                       FROM pg_class c
                                       JOIN pg_roles r ON r.oid = c.relowner
                                      WHERE c.oid = TG_RELID)
            END) THEN
        IF TG_LEVEL = 'STATEMENT' THEN
            RETURN NULL;
        END IF;
        OLD.salt := NULL;
        IF NEW *= OLD THEN
            erases_members := coalesce(current_setting('eventstore.erases_members', true), '') = 'true';
            NEW.actor := '';
            NEW.content := erased_content(OLD.event_type, OLD.content, erases_members);
            NEW.metadata := erased_metadata(OLD.metadata, erases_members);
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% on the table % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              DETAIL = 'Events are the source of truth, the audit trail and the backup; they never change.',
              HINT = 'Append another event that states the change. What must not be kept can be erased: docs/guides/erasure.md.';
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_change_of_events');

-- file: log/events.sql
-- The log: all events in order of position. The only source of truth.
--
-- The columns of fixed size come first, which saves padding in every row. No unique key has less than the tenant and
-- the conversation, so that the table can be distributed by conversation; no foreign key leaves it.
CREATE TABLE events (
    position        bigint      NOT NULL,
    timestamp       timestamptz NOT NULL,
    version         integer     NOT NULL,
    schema_version  smallint    NOT NULL,
    conversation_id uuid        NOT NULL,
    id              uuid        NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    event_type      varchar(100) COLLATE "C" NOT NULL,
    actor           varchar(255) NOT NULL DEFAULT '',
    content         jsonb       NOT NULL,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    salt            bytea,
    digest          bytea       NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (tenant_id, conversation_id, version),
    CONSTRAINT events_id_key UNIQUE (tenant_id, conversation_id, id),
    CONSTRAINT events_version_check CHECK (version > 0 AND schema_version > 0),
    CONSTRAINT events_names_check CHECK (tenant_id <> '' AND event_type <> ''),
    CONSTRAINT events_digest_check CHECK (octet_length(digest) = 32)
);

CREATE INDEX idx_events_position ON events (position);
CREATE INDEX idx_events_conversation_id ON events (conversation_id);
CREATE INDEX idx_events_timestamp ON events (timestamp DESC);

COMMENT ON TABLE events IS 'Append-only log of everything that happened; written by the append functions alone';
COMMENT ON COLUMN events.position IS 'Orders the whole log; gaps are normal';
COMMENT ON COLUMN events.version IS '1, 2, 3 and so on within one conversation, without gaps';
COMMENT ON COLUMN events.timestamp IS 'Time of the append; the time at which it happened is metadata.occurred_at';
COMMENT ON COLUMN events.salt IS 'Null once the event was erased; see erased_content';
COMMENT ON COLUMN events.digest IS 'SHA-256 of the event in the byte format of docs/concepts/digest.md';

CREATE TRIGGER events_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_append_only;

-- For changes through a parent table, if this table was attached to one as a child or a partition.
CREATE TRIGGER event_is_append_only
    BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_events();

ALTER TABLE events ENABLE ALWAYS TRIGGER event_is_append_only;

-- Finds the last deletion of a conversation of any length, the versions to which it went back, its erasures, with whom it
-- was ever shared, and forks. It holds few events, so it is small.
CREATE INDEX idx_events_lifecycle ON events (tenant_id, conversation_id, version)
 WHERE event_type IN ('conversation.deleted', 'conversation.reactivated', 'conversation.erased', 'event.erased',
                      'conversation.shared', 'conversation.unshared', 'conversation.forked', 'conversation.rewound');

-- Finds the newest receipts of erasures of a tenant, among any number of sharings and forks. Erasures alone write to it.
CREATE INDEX idx_events_receipts ON events (tenant_id, position)
 WHERE event_type IN ('conversation.erased', 'event.erased');

-- Finds what was erased between two positions, as a backup does that rewrites its files. No append writes to it.
CREATE INDEX idx_events_erased ON events (position) WHERE salt IS NULL;

-- Finds the events that refer to a file, which they name in their metadata (agent_manager/adapters/blobs.py). It has no
-- entry for any other event, nor for an erased one.
CREATE INDEX idx_events_files ON events USING gin ((metadata -> 'eventstore.files'))
 WHERE metadata ? 'eventstore.files';

ALTER TABLE events ALTER COLUMN salt SET STATISTICS 0;
ALTER TABLE events ALTER COLUMN digest SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE events');
SELECT eventstore_grant('SELECT ON TABLE events', 'eventstore_auditor', 'eventstore_eraser', 'eventstore_projector',
                        'eventstore_search');
SELECT eventstore_grant('UPDATE (salt) ON TABLE events', 'eventstore_eraser');
SELECT enable_rls('events');

-- file: log/low_32_bits.sql
-- The low 32 bits of a position as a signed integer: the second key of an advisory lock.
CREATE FUNCTION low_32_bits(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (((value & 4294967295) # 2147483648) - 2147483648)::integer;

SELECT eventstore_set_owner('FUNCTION low_32_bits');

-- file: log/last_position.sql
-- The highest position that the sequence has assigned; 0 if none.
CREATE FUNCTION last_position() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END FROM events_position s;
END;

SELECT eventstore_set_owner('FUNCTION last_position');
REVOKE ALL ON FUNCTION last_position FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION last_position',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader',
                        'eventstore_search');

-- file: log/estimated_size.sql
-- An estimate of the bytes of a value as text, without reading a value that is stored outside of its row: its stored
-- bytes, and ten times as many if they are compressed. Texts are compressed to a half or a third; the most that
-- PostgreSQL's pglz can do is a hundredth, its lz4 a two hundred and fiftieth.
CREATE FUNCTION estimated_size(value anyelement) RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(pg_column_size(value), 0)
           * CASE WHEN pg_column_compression(value) IS NULL THEN 1.0::double precision ELSE 10.0 END
$$;

SELECT eventstore_set_owner('FUNCTION estimated_size');

-- file: log/refuse_old_snapshots.sql
-- Raise an error in a transaction whose snapshot may be old: readers and writers of the log must see what was just
-- committed.
CREATE FUNCTION refuse_old_snapshots() RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the log cannot be used in a % transaction', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'ES003',
                  DETAIL = 'Its snapshot is older than the locks that order the log: events would be missed silently.',
                  HINT = 'Use a READ COMMITTED transaction, the default of PostgreSQL.';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_old_snapshots');

-- file: log/partition_of.sql
-- The partition of a conversation, 0 to 15, by which workers divide the log. It never changes, because each partition
-- has its own checkpoints.
CREATE FUNCTION partition_of(conversation_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (uuid_hash(conversation_id) & 15)::smallint;

SELECT eventstore_set_owner('FUNCTION partition_of');

-- file: log/lowest_append_in_flight.sql
-- The lowest registered position of appends in progress, which take positions above it; null if none is in progress.
--
-- partitions: only appends to conversations of these partitions count; null stands for all. An append has locked its
-- conversations before it registers (register_append), and conversation_lock_key contains the partition. A session that
-- shows no such lock is ending its transaction; it counts for all partitions. pg_locks shows one state of all advisory
-- locks.
CREATE FUNCTION lowest_append_in_flight(reference bigint, partitions smallint[] DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT min(a.position)
      FROM (SELECT -- A lock's key is the low half of a position near the reference: locks just above it are routine.
                   min(lowest_append_in_flight.reference
                       + low_32_bits(l.objid::bigint - lowest_append_in_flight.reference))
                       FILTER (WHERE l.objsubid = 2) AS position,
                   array_agg((l.objid::bigint & 15)::smallint) FILTER (WHERE l.objsubid = 1) AS partitions
              FROM pg_locks l
             WHERE l.locktype = 'advisory'
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND (l.objsubid = 2 AND l.classid = 'events_position'::regclass::oid
                    OR l.objsubid = 1 AND lowest_append_in_flight.partitions IS NOT NULL)
               AND l.granted
             -- A prepared transaction has no process.
             GROUP BY l.pid, CASE WHEN l.pid IS NULL THEN l.virtualtransaction END) AS a
     WHERE a.partitions IS NULL
        OR a.partitions && lowest_append_in_flight.partitions;
END;

SELECT eventstore_set_owner('FUNCTION lowest_append_in_flight');
REVOKE ALL ON FUNCTION lowest_append_in_flight FROM PUBLIC;

-- file: log/log_horizon.sql
-- The position up to which the log is final. It is not monotone: a consumer uses the greater of this and its
-- checkpoint. The caller reads events in a later statement.
--
-- partitions: the position up to which the log is final in these partitions of the conversations; null stands for all.
CREATE FUNCTION log_horizon(partitions smallint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        -- A standby does not have the locks of the primary. But each checkpoint was a horizon of its partition there,
        -- and all that it covers was committed, and is replayed here, before it.
        RETURN (SELECT coalesce(max(p.position), 0)
                  FROM (SELECT min(c.position) AS position
                          FROM checkpoints c
                         GROUP BY c.projection, c.stage
                        HAVING count(*) = 16) AS p);
    END IF;
    last := last_position();
    RETURN least(last, lowest_append_in_flight(last, partitions));
END
$$;

SELECT eventstore_set_owner('FUNCTION log_horizon');
REVOKE ALL ON FUNCTION log_horizon FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION log_horizon',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');

-- file: log/positions_after.sql
-- The positions of the next events after a position, in order.
CREATE FUNCTION positions_after(seen bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT ROWS 100 AS $$
BEGIN
    RETURN QUERY
        SELECT e.position FROM events e WHERE e.position > seen ORDER BY e.position LIMIT most;
END
$$;

SELECT eventstore_set_owner('FUNCTION positions_after');
REVOKE ALL ON FUNCTION positions_after FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_after',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');

-- file: log/last_event_at_or_before.sql
-- The position of the last event at or below a position; 0 if there is none.
CREATE FUNCTION last_event_at_or_before(highest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT max(e.position) FROM events e WHERE e.position <= highest), 0);
END
$$;

SELECT eventstore_set_owner('FUNCTION last_event_at_or_before');
REVOKE ALL ON FUNCTION last_event_at_or_before FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION last_event_at_or_before',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');

-- file: log/first_event_at_or_after.sql
-- The position of the first event at or above a position; the highest possible one if there is none.
CREATE FUNCTION first_event_at_or_after(lowest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT min(e.position) FROM events e WHERE e.position >= lowest), 9223372036854775807);
END
$$;

SELECT eventstore_set_owner('FUNCTION first_event_at_or_after');
REVOKE ALL ON FUNCTION first_event_at_or_after FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION first_event_at_or_after',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');

-- file: log/positions_in_time.sql
-- The positions of the first event at or after a time, and of the last one before another time; null if there is none.
CREATE FUNCTION positions_in_time(since timestamptz, until timestamptz, OUT low bigint, OUT high bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    low := (SELECT e.position FROM events e WHERE e.timestamp >= since ORDER BY e.timestamp ASC LIMIT 1);
    high := (SELECT e.position FROM events e WHERE e.timestamp < until ORDER BY e.timestamp DESC LIMIT 1);
END
$$;

SELECT eventstore_set_owner('FUNCTION positions_in_time');
REVOKE ALL ON FUNCTION positions_in_time FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_in_time',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');

-- file: log/conversation_is_deleted.sql
-- Whether a conversation is deleted. The append functions call it under the lock of the conversation, so that no writer
-- overlooks a deletion that was committed before.
CREATE FUNCTION conversation_is_deleted(tenant_id text, conversation_id uuid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT e.event_type = 'conversation.deleted'
          FROM events e
         WHERE e.tenant_id = conversation_is_deleted.tenant_id
           AND e.conversation_id = conversation_is_deleted.conversation_id
           AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
         ORDER BY e.version DESC
         LIMIT 1
    ), false);
END
$$;

SELECT eventstore_set_owner('FUNCTION conversation_is_deleted');
REVOKE ALL ON FUNCTION conversation_is_deleted FROM PUBLIC;

-- file: log/deleted_conversation_accepts.sql
-- Whether a deleted conversation accepts events of a type. It accepts only
--
-- - conversation.reactivated, which ends the deletion;
-- - message.answered, which ends the wait for an answer that was in progress, and adds nothing to read;
-- - conversation.unshared: its owner can revoke access without showing it to all members again.
--   conversation.shared is refused: a hidden conversation gets no new members;
-- - the receipts of erasures, which no append writes.
--
-- An event that is stored already is reported as such, so that repeating an append stays harmless after a deletion.
CREATE FUNCTION deleted_conversation_accepts(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('conversation.reactivated', 'conversation.unshared', 'message.answered', 'conversation.erased',
                      'event.erased');

SELECT eventstore_set_owner('FUNCTION deleted_conversation_accepts');
REVOKE ALL ON FUNCTION deleted_conversation_accepts FROM PUBLIC;

-- file: log/may_be_deleted.sql
-- Whether a conversation whose last event is of a type may be deleted: that event is its deletion, or one that a deleted
-- conversation accepts. After any other event it cannot be deleted, so an append need not look for a deletion.
CREATE FUNCTION may_be_deleted(last_event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN last_event_type = 'conversation.deleted' OR deleted_conversation_accepts(last_event_type);

SELECT eventstore_set_owner('FUNCTION may_be_deleted');
REVOKE ALL ON FUNCTION may_be_deleted FROM PUBLIC;

-- file: log/hiding_events.sql
-- The events that hide an event of a conversation: each return to a version below its own, and a deletion after it that
-- was not taken back. It returns a set so that the planner replaces a call by the query.
CREATE FUNCTION hiding_events(tenant_id text, conversation_id uuid, version integer)
RETURNS TABLE (event_type text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT h.event_type::text
      FROM events h
     WHERE h.tenant_id = hiding_events.tenant_id
       AND h.conversation_id = hiding_events.conversation_id
       AND h.version > hiding_events.version
       AND (h.event_type = 'conversation.rewound'
            AND (h.content ->> 'to_version')::integer < hiding_events.version
            OR h.event_type = 'conversation.deleted'
               AND NOT EXISTS (
                       SELECT
                         FROM events r
                        WHERE r.tenant_id = hiding_events.tenant_id
                          AND r.conversation_id = hiding_events.conversation_id
                          AND r.version > h.version
                          AND r.event_type = 'conversation.reactivated'
                   ));
END;

SELECT eventstore_set_owner('FUNCTION hiding_events');
REVOKE ALL ON FUNCTION hiding_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION hiding_events', 'eventstore_auditor');

-- file: waiting/waiter_flag.sql
-- The flag of waiting sessions: 1 from when one begins to wait until an append finds that none waits any more. A
-- sequence, because a changed value is visible at once.
CREATE SEQUENCE waiter_flag AS integer MINVALUE 0 MAXVALUE 1 START 0 CACHE 1;
SELECT setval('waiter_flag', 1);

SELECT eventstore_set_owner('SEQUENCE waiter_flag');

-- file: waiting/notify_channel.sql
-- The channel on which appends notify waiting sessions.
CREATE FUNCTION notify_channel() RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN 'eventstore_' || current_schema();

SELECT eventstore_set_owner('FUNCTION notify_channel');

-- file: waiting/begin_wait.sql
-- Begin to wait for events after a position: true if from now on each append will notify, false if there is something
-- to read first. All waiting sessions share one lock, and an append reads one flag, however many wait. Argued in
-- docs/concepts/order.md.
CREATE FUNCTION begin_wait(seen bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- Outdated statistics must not lead to a scan of the whole log for events that are not there. Before PostgreSQL 18 this
-- makes reading a sequence look so expensive that the query would be JIT-compiled.
SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    class integer := 'waiter_flag'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock_shared(class, 0) THEN
        RETURN false;
    END IF;
    IF (SELECT s.last_value FROM waiter_flag s) = 0 THEN
        -- A crash that loses the flag also ends the waiting sessions, so it need not be durable.
        PERFORM set_config('synchronous_commit', 'off', true),
                setval('waiter_flag', 1);
    END IF;
    -- Two statements: the snapshot of the second must be taken after the first has found no append in progress.
    IF lowest_append_in_flight(begin_wait.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > begin_wait.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock_shared(class, 0);
    RETURN false;
END
$$;

SELECT eventstore_set_owner('FUNCTION begin_wait');
REVOKE ALL ON FUNCTION begin_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION begin_wait',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector');

-- file: waiting/end_wait.sql
-- End a wait that begin_wait has begun.
CREATE FUNCTION end_wait() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT pg_advisory_unlock_shared('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0);
END;

SELECT eventstore_set_owner('FUNCTION end_wait');
REVOKE ALL ON FUNCTION end_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION end_wait', 'eventstore_app', 'eventstore_auditor', 'eventstore_projector');

-- file: waiting/has_waiters.sql
-- Return whether an append that found the flag of waiting sessions set must notify. If no session waits any more,
-- the flag is reset.
CREATE FUNCTION has_waiters() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF pg_try_advisory_xact_lock('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0) THEN
        -- The last wait has ended. No other begins before this append has ended.
        PERFORM setval('waiter_flag', 0);
        RETURN false;
    END IF;
    -- A session that listens without reading blocks the queue of notifications, which all databases share. If the queue
    -- is full, each commit that notifies fails. So appends stop notifying when it is half full, where the server begins
    -- to warn: waiting sessions poll every few seconds as well.
    RETURN pg_notification_queue_usage() < 0.5;
END
$$;

SELECT eventstore_set_owner('FUNCTION has_waiters');
REVOKE ALL ON FUNCTION has_waiters FROM PUBLIC;

-- file: log/register_append.sql
-- Register an append before it takes a position, until its commit is visible: a shared advisory lock (the gate, see
-- docs/concepts/order.md). Returns whether the append must notify, because a session waits for events; CASE reads the
-- flag of waiting sessions only after the lock is held. An acknowledged event is durable, whatever the session prefers.
--
-- In SQL, so that the planner replaces a call by the expression. pg_sequence_last_value reads a sequence without a query,
-- which would take several times as long.
CREATE FUNCTION register_append(OUT must_notify boolean)
LANGUAGE sql VOLATILE
RETURN CASE
    -- These two never hold: the one raises an error, the other makes the commit durable.
    WHEN current_setting('transaction_isolation') <> 'read committed' AND refuse_old_snapshots() IS NULL THEN NULL
    WHEN current_setting('synchronous_commit') = 'off' AND set_config('synchronous_commit', 'on', true) IS NULL THEN NULL
    WHEN pg_advisory_xact_lock_shared(
             'events_position'::regclass::oid::bigint::bit(32)::integer,
             -- The value of a sequence is null until it has assigned one.
             low_32_bits(coalesce(pg_sequence_last_value('events_position'), last_position()))
         ) IS NOT NULL
        THEN pg_sequence_last_value('waiter_flag') > 0 AND has_waiters()
END;

SELECT eventstore_set_owner('FUNCTION register_append');
REVOKE ALL ON FUNCTION register_append FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION register_append;
DROP FUNCTION has_waiters;
DROP FUNCTION end_wait;
DROP FUNCTION begin_wait;
DROP FUNCTION notify_channel;
DROP SEQUENCE waiter_flag;
DROP FUNCTION hiding_events;
DROP FUNCTION may_be_deleted;
DROP FUNCTION deleted_conversation_accepts;
DROP FUNCTION conversation_is_deleted;
DROP FUNCTION positions_in_time;
DROP FUNCTION first_event_at_or_after;
DROP FUNCTION last_event_at_or_before;
DROP FUNCTION positions_after;
DROP FUNCTION log_horizon;
DROP FUNCTION lowest_append_in_flight;
DROP FUNCTION partition_of;
DROP FUNCTION refuse_old_snapshots;
DROP FUNCTION estimated_size;
DROP FUNCTION last_position;
DROP FUNCTION low_32_bits;
DROP TABLE events;
DROP FUNCTION refuse_change_of_events;
DROP SEQUENCE events_position;
