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
