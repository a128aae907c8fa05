-- The administrative acts that the current login may see: those of its tenant.
CREATE VIEW audit_acts WITH (security_invoker = true) AS
SELECT t.tenant_id, t.position, t.recorded_at, t.actor, substr(t.action, length('eventstore.') + 1) AS act, t.content AS details,
       t.reason, t.via, t.login
  FROM audit_trail t
 WHERE t.conversation_id = administration_id();

COMMENT ON VIEW audit_acts IS 'Administrative acts: keys, users, tenants, logins, rebuilds, restores, migrations';

SELECT eventstore_set_owner('VIEW audit_acts');
SELECT eventstore_grant('SELECT ON TABLE audit_acts', 'eventstore_auditor', 'eventstore_projector');
