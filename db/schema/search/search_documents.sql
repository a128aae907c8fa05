-- What can be searched: a document for each event that says something. Derived from events by the projection "search".
-- The text itself is not kept a second time: the page of a search reads it from the log, by (conversation, version).
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
    words           tsvector NOT NULL,
    plain_words     text NOT NULL DEFAULT '',
    CONSTRAINT search_documents_pkey PRIMARY KEY (tenant_id, conversation_id, version)
);

-- The list of pending entries is what a search reads one by one: short, so that a search stays fast while rows arrive.
CREATE INDEX idx_search_documents_words ON search_documents USING gin (words) WITH (gin_pending_list_limit = 256);
CREATE INDEX idx_search_documents_created_at ON search_documents (tenant_id, created_at, position);

-- A task that is described anew takes its former description out of the search.
CREATE INDEX idx_search_documents_task ON search_documents (tenant_id, conversation_id, id) WHERE kind = 'task';

COMMENT ON COLUMN search_documents.kind IS 'message; task (its description), status (what was said of it) or artifact';
COMMENT ON COLUMN search_documents.id IS 'Of the message, or of the task';
COMMENT ON COLUMN search_documents.words IS 'Stems of the text, and labels by which a search is narrowed: see search_labels';
COMMENT ON COLUMN search_documents.plain_words IS 'Distinct words at the beginning of the text, unstemmed: what misspelt words are corrected to';

SELECT eventstore_own('TABLE search_documents');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE search_documents', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE search_documents', 'eventstore_search');
SELECT raise_wall('search_documents');
