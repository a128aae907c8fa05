SELECT a.actor, a.conversations, a.active_conversations, a.messages, a.tasks, a.events, a.characters, a.bytes
  FROM statistics_by_actor(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS a
