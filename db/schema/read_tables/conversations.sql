-- The conversations. Read tables are derived from events by the projections, one .sql file each in projections/; they
-- can be emptied and refilled at any time. They have no foreign keys: a projection may be ahead of another.
--
-- Planner statistics cover all rows, so EXPLAIN would tell a caller roughly how many rows of others hold a text. The
-- columns with SET STATISTICS 0, here and in other tables, are texts by whose values no query searches.
CREATE TABLE conversations (
    id            uuid NOT NULL,
    tenant_id     varchar(255) COLLATE "C" NOT NULL,
    name          varchar(255) NOT NULL DEFAULT '',
    is_active     boolean NOT NULL DEFAULT true,
    is_deleted    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    message_count integer NOT NULL DEFAULT 0,
    erased_count  integer NOT NULL DEFAULT 0,
    version       integer NOT NULL,
    given_id      text,
    forked_from   jsonb,
    metadata      jsonb,
    member_order  jsonb
);

CREATE INDEX idx_conversations_id ON conversations (id);
CREATE INDEX idx_conversations_updated_at ON conversations (updated_at DESC);

COMMENT ON COLUMN conversations.given_id IS 'Id that the client gave, if it was not a UUID';
COMMENT ON COLUMN conversations.member_order IS
    'Order of the members of JSON values, by column: jsonb does not keep it; see eventstore/member_order.py';

COMMENT ON COLUMN conversations.erased_count IS 'Number of its events that were erased';
COMMENT ON COLUMN conversations.version IS 'Version of the last event applied to the row';

-- One index for each order of pages (projections/reading.py): the tenant, the columns filtered by equality, then those
-- of the order; the last one makes it total. A backward scan gives newest first.
CREATE INDEX idx_conversations_pages_by_update ON conversations (tenant_id, updated_at, id);
CREATE INDEX idx_conversations_pages ON conversations (tenant_id, created_at, id);

-- Finds the conversations whose given id begins with a text. A key of an index has a largest size: the few ids above it
-- are found only whole, by the conversation's id.
CREATE INDEX idx_conversations_given_id ON conversations (tenant_id, given_id COLLATE "C")
 WHERE octet_length(given_id) <= 1000;

-- The primary key comes last, here and in other tables: before a table has statistics, all its indexes cost the planner
-- the same, and of these it takes the one that was created last. Plans that are made then are kept while the table grows.
ALTER TABLE conversations ADD CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE conversations ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE conversations ALTER COLUMN given_id SET STATISTICS 0;

SELECT eventstore_set_owner('TABLE conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE conversations', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE conversations', 'eventstore_reader');
SELECT enable_rls('conversations', 'id');
