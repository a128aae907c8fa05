-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

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

-- What a search has to know of a conversation: only of those that name a language or were ever hidden.
CREATE TABLE search_conversations (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    language        varchar(20) COLLATE "C",
    language_from   integer,
    is_deleted      boolean NOT NULL DEFAULT false,
    CONSTRAINT search_conversations_pkey PRIMARY KEY (tenant_id, conversation_id)
);

CREATE INDEX idx_search_conversations_deleted ON search_conversations (tenant_id) WHERE is_deleted;
CREATE INDEX idx_search_conversations_language ON search_conversations (tenant_id, language) WHERE language IS NOT NULL;

COMMENT ON COLUMN search_conversations.language_from IS 'Version of the event that named the language: it holds for what follows';

SELECT eventstore_own('TABLE ' || t),
       eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_app'),
       eventstore_grant(format('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE %I', t), 'eventstore_projector')
  FROM unnest(ARRAY['search_documents', 'search_conversations']) AS t;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What it has applied is forgotten with its tables.
SELECT drop_stage('search', s) FROM unnest(ARRAY['next', 'previous']) AS s;
DELETE FROM checkpoints WHERE projection = 'search';
DELETE FROM projection_texts WHERE projection = 'search';
DELETE FROM parked WHERE projection = 'search';
DROP TABLE search_conversations;
DROP TABLE search_documents;
