-- The read tables. Derived from events by the projections, one .sql file each in projections/; they can be emptied
-- and refilled at any time. No foreign keys among them: a projection may run ahead of another.
CREATE TABLE conversations (
    id            uuid NOT NULL,
    tenant_id     varchar(255) COLLATE "C" NOT NULL,
    name          varchar(255) NOT NULL DEFAULT '',
    is_active     boolean NOT NULL DEFAULT true,
    is_deleted    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    message_count integer NOT NULL DEFAULT 0,
    version       integer NOT NULL,
    given_id      text,
    forked_from   jsonb,
    metadata      jsonb,
    member_order  jsonb,
    CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id)
);

CREATE INDEX idx_conversations_id ON conversations (id);
CREATE INDEX idx_conversations_updated_at ON conversations (updated_at DESC);

COMMENT ON COLUMN conversations.given_id IS 'The id as the client gave it, where that was not a UUID';
COMMENT ON COLUMN conversations.member_order IS
    'Order of the members in the values of other columns, by column: see eventstore/memberorder.py; jsonb keeps none';

COMMENT ON COLUMN conversations.version IS 'Version of the last event that this row holds';

-- One index for each order in which pages are read (projections/reading.py): the tenant, what is filtered by equality,
-- then the columns of the order, the last of which makes it total. Read backwards they serve newest first too.
CREATE INDEX idx_conversations_pages_by_update ON conversations (tenant_id, updated_at, id);
CREATE INDEX idx_conversations_pages ON conversations (tenant_id, created_at, id);

ALTER TABLE conversations ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE conversations ALTER COLUMN given_id SET STATISTICS 0;

SELECT eventstore_own('TABLE conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE conversations', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE conversations', 'eventstore_reader');
SELECT raise_wall('conversations', 'id');
