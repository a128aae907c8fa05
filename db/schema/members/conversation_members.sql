-- The users who may see and append to a conversation. Only the append functions write here, in the transaction of the
-- append, so that sharing and unsharing take effect when the append returns. The log can recreate it (members_of_log).
CREATE TABLE conversation_members (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    user_id         varchar(255) COLLATE "C" NOT NULL,
    access          text COLLATE "C" NOT NULL,
    CONSTRAINT conversation_members_access_check CHECK (access IN ('own', 'write', 'read')),
    CONSTRAINT conversation_members_user_check CHECK (user_id <> '')
);

CREATE INDEX idx_conversation_members_user_id ON conversation_members (tenant_id, user_id, conversation_id);

-- Created last: see the table conversations.
ALTER TABLE conversation_members ADD CONSTRAINT conversation_members_pkey PRIMARY KEY (tenant_id, conversation_id, user_id);

COMMENT ON TABLE conversation_members IS
    'Users who may see and append to a conversation; written by the append functions alone';
COMMENT ON COLUMN conversation_members.access IS 'own: also share and delete; write: also append; read';

SELECT eventstore_set_owner('TABLE conversation_members');
SELECT eventstore_grant('SELECT (tenant_id, conversation_id, user_id) ON TABLE conversation_members',
                        'eventstore_auditor', 'eventstore_eraser', 'eventstore_reader');
SELECT eventstore_grant('SELECT ON TABLE conversation_members', 'eventstore_search');

-- Users see their own memberships, which the policies of other tables read. Those of others are shown by members_of.
SELECT enable_rls('conversation_members', '');
DO $$
BEGIN
    EXECUTE format('ALTER POLICY open_to_caller ON conversation_members USING (tenant_id = %s AND user_id = (SELECT current_tenant_user()))',
                   rls_tenant());
END
$$;
