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
