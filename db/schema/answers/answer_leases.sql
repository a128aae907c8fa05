-- Which process is answering which message. A lease ends when its holder releases it, or some seconds after the holder has
-- renewed it for the last time. A row, and not an advisory lock of the session: it survives a failover, a pooler and a
-- connection that breaks while the process goes on, and its holder can be named.
--
-- Exactly one answer does not rest on it alone: what an answer appends expects the version of the conversation that it
-- has seen, so of two processes that both believe to hold the lease, one is refused. The lease is why there are rarely two.
CREATE TABLE answer_leases (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    message_id      uuid NOT NULL,
    holder          uuid NOT NULL,
    expires_at      timestamptz NOT NULL,
    CONSTRAINT answer_leases_pkey PRIMARY KEY (tenant_id, conversation_id, message_id)
);

COMMENT ON TABLE answer_leases IS 'Messages that a process is answering just now';
COMMENT ON COLUMN answer_leases.holder IS 'A manager, by an id that it made for itself';

SELECT eventstore_own('TABLE answer_leases');
SELECT raise_wall('answer_leases');
