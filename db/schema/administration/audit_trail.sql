-- The trail as auditors ask for it: who did what, when, why and through what. A row for each event that the current login
-- may see; row-level security is that of the log.
--
-- happened_at: when it happened, which may be before it was recorded (occurred_at).
-- reason: why, as an act, an erasure or a failure states it; causation_id: the event or request that caused it.
-- via: the program through which an administrator acted; login: its login.
CREATE VIEW audit_trail WITH (security_invoker = true) AS
SELECT e.tenant_id,
       e.position,
       e.timestamp AS recorded_at,
       occurred_at(e.metadata, e.timestamp) AS happened_at,
       e.actor,
       e.event_type AS action,
       e.conversation_id,
       e.version,
       e.id AS event_id,
       e.metadata ->> 'correlation_id' AS correlation_id,
       e.metadata ->> 'causation_id' AS causation_id,
       coalesce(e.content ->> 'reason', e.content ->> 'error') AS reason,
       e.metadata ->> 'via' AS via,
       e.metadata ->> 'login' AS login,
       e.content,
       e.metadata,
       encode(e.digest, 'hex') AS digest
  FROM events e;

COMMENT ON VIEW audit_trail IS 'Who did what, when, why and through what: the events that the login may see';

SELECT eventstore_set_owner('VIEW audit_trail');
SELECT eventstore_grant('SELECT ON TABLE audit_trail', 'eventstore_auditor', 'eventstore_projector');
