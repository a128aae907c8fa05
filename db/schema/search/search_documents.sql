-- The searchable documents: one for each event with text, filled by the projection search. The text itself is not
-- stored again: a page of results reads it from the log, by conversation and version.
CREATE TABLE search_documents (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    version         integer NOT NULL,
    position        bigint NOT NULL,
    kind            varchar(20) COLLATE "C" NOT NULL,
    id              uuid NOT NULL,
    role            varchar(50),
    actor           varchar(255) NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    language        varchar(20) COLLATE "C" NOT NULL,
    words           tsvector NOT NULL
);

-- A search reads pending entries one by one: the list is short, so that searches stay fast while rows arrive.
CREATE INDEX idx_search_documents_words ON search_documents USING gin (words) WITH (gin_pending_list_limit = 256);
CREATE INDEX idx_search_documents_created_at ON search_documents (tenant_id, created_at, position);

-- A new description of a task, or name of a conversation, replaces the former one.
CREATE INDEX idx_search_documents_replaced ON search_documents (tenant_id, conversation_id, id)
 WHERE kind IN ('task', 'conversation');

-- Created last: see the table conversations.
ALTER TABLE search_documents ADD CONSTRAINT search_documents_pkey PRIMARY KEY (tenant_id, conversation_id, version);

COMMENT ON COLUMN search_documents.kind IS
    'message; task (its description), status (its message) or artifact; conversation (its name)';
COMMENT ON COLUMN search_documents.id IS 'Id of the message, task or conversation';
COMMENT ON COLUMN search_documents.words IS
    'Words of the text (weight A), their stems (weight D), and labels for filters: see search_document, search_labels';

SELECT eventstore_set_owner('TABLE search_documents');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE search_documents', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE search_documents', 'eventstore_search');
SELECT enable_rls('search_documents');
