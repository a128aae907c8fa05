-- The properties of conversations that searches use. Only those that name a language or were ever deleted have a row.
CREATE TABLE search_conversations (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    language        varchar(20) COLLATE "C",
    language_from   integer,
    is_deleted      boolean NOT NULL DEFAULT false
);

CREATE INDEX idx_search_conversations_deleted ON search_conversations (tenant_id) WHERE is_deleted;
CREATE INDEX idx_search_conversations_language ON search_conversations (tenant_id, language) WHERE language IS NOT NULL;

-- Created last: see the table conversations.
ALTER TABLE search_conversations ADD CONSTRAINT search_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);

COMMENT ON COLUMN search_conversations.language_from IS
    'Version of the event that named the language: it holds for what follows';

SELECT eventstore_set_owner('TABLE search_conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE search_conversations',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE search_conversations', 'eventstore_search');
SELECT enable_rls('search_conversations');
