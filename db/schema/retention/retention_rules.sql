-- Rules by which conversations are erased when they are old enough: each conversation of the tenant that matches all
-- conditions of a rule. Only add_retention_rule, remove_retention_rule and record_retention_run write here; a trigger
-- records each change as an administrative act.
CREATE TABLE retention_rules (
    tenant_id  varchar(255) COLLATE "C" NOT NULL,
    id         uuid NOT NULL,
    age        interval NOT NULL,
    since      text NOT NULL,
    state      text,
    user_id    varchar(255) COLLATE "C",
    metadata   jsonb,
    reason     text NOT NULL,
    added_by   varchar(255) NOT NULL,
    added_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    applied_at timestamptz,
    outcome    jsonb,
    CONSTRAINT retention_rules_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT retention_rules_age_check CHECK (age > '0'),
    CONSTRAINT retention_rules_since_check CHECK (since IN ('last_event', 'creation')),
    CONSTRAINT retention_rules_state_check CHECK (state IN ('active', 'archived', 'deleted')),
    CONSTRAINT retention_rules_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
);

COMMENT ON TABLE retention_rules IS 'Rules by which old conversations are erased; written by functions alone';
COMMENT ON COLUMN retention_rules.since IS 'From when the age counts: last_event, or creation of the conversation';
COMMENT ON COLUMN retention_rules.state IS 'Only conversations in this state: active, archived or deleted; null: any';
COMMENT ON COLUMN retention_rules.user_id IS 'Only conversations that this user owns; null: of any user';
COMMENT ON COLUMN retention_rules.metadata IS 'Only conversations whose metadata contain these; null: any';
COMMENT ON COLUMN retention_rules.applied_at IS 'Begin of the last run; null: there was none yet';
COMMENT ON COLUMN retention_rules.outcome IS 'Counts of the last run: conversations, events, held, skipped, failed';

ALTER TABLE retention_rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON retention_rules
    USING ((SELECT NOT login_is_bound()) OR tenant_id = (SELECT current_tenant()));

SELECT eventstore_set_owner('TABLE retention_rules');
SELECT eventstore_grant('SELECT ON TABLE retention_rules', 'eventstore_app');
