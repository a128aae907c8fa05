SELECT t.key, t.questions, t.answered, t.unmeasured, t.average, t.median, t.p95, t.longest
  FROM statistics_response_times(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s, %(by)s) AS t
