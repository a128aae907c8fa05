-- Legal holds: what must not be erased, neither on request nor by a rule. A hold is on a conversation, on a user (the
-- conversations that they own, and those with events that they caused), or on the whole tenant. Only place_hold and
-- release_hold write here; a trigger records each change as an administrative act. A hold that was released is deleted;
-- the acts keep the record.
CREATE TABLE legal_holds (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    id              uuid NOT NULL,
    conversation_id uuid,
    user_id         varchar(255) COLLATE "C",
    reason          text NOT NULL,
    placed_by       varchar(255) NOT NULL,
    placed_at       timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT legal_holds_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT legal_holds_subject_check CHECK (num_nonnulls(conversation_id, user_id) <= 1 AND user_id <> ''),
    CONSTRAINT legal_holds_reason_check CHECK (reason <> '')
);

COMMENT ON TABLE legal_holds IS 'What must not be erased; written by place_hold and release_hold alone';
COMMENT ON COLUMN legal_holds.conversation_id IS 'The conversation; null: a user, or the whole tenant';
COMMENT ON COLUMN legal_holds.user_id IS 'The user; null: a conversation, or the whole tenant';

ALTER TABLE legal_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON legal_holds
    USING ((SELECT NOT login_is_bound()) OR tenant_id = (SELECT current_tenant()));

SELECT eventstore_set_owner('TABLE legal_holds');
SELECT eventstore_grant('SELECT ON TABLE legal_holds', 'eventstore_app');
