-- name: statistics_by_day
SELECT d.day, d.conversations, d.active_conversations, d.messages, d.tasks, d.events, d.characters, d.bytes
  FROM (SELECT d.*
          FROM statistics_by_day(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS d
         ORDER BY d.day DESC NULLS FIRST
         LIMIT %(limit)s) AS d
 ORDER BY d.day

-- name: statistics_by_role
SELECT r.role, r.conversations, r.messages, r.characters, r.bytes, r.parts, r.parts_bytes
  FROM statistics_by_role(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS r

-- name: statistics_by_actor
SELECT a.actor, a.conversations, a.active_conversations, a.messages, a.tasks, a.events, a.characters, a.bytes
  FROM statistics_by_actor(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS a
 LIMIT %(limit)s

-- name: statistics_by_status
SELECT s.kind, s.status, s.number
  FROM statistics_by_status(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS s

-- name: statistics_response_times
SELECT t.key, t.questions, t.answered, t.unmeasured, t.average, t.median, t.p95, t.longest
  FROM (SELECT t.*
          FROM statistics_response_times(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s, %(by)s)
                   WITH ORDINALITY AS t (key, questions, answered, unmeasured, average, median, p95, longest, number)
         ORDER BY CASE WHEN %(by)s = 'day' THEN -t.number ELSE t.number END
         LIMIT %(limit)s) AS t
 ORDER BY t.number

-- name: statistics_task_times
SELECT t.status, t.is_final, t.tasks, t.unmeasured, t.average, t.median, t.p95, t.stays, t.unmeasured_stays,
       t.average_stay, t.median_stay, t.p95_stay
  FROM statistics_task_times(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS t

-- name: statistics_sizes
SELECT s.what, s.number, s.characters, s.bytes, s.average_bytes, s.largest_bytes
  FROM statistics_sizes(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS s
