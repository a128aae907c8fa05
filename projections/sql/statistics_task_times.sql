SELECT t.status, t.is_final, t.tasks, t.unmeasured, t.average, t.median, t.p95, t.stays, t.unmeasured_stays,
       t.average_stay, t.median_stay, t.p95_stay
  FROM statistics_task_times(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS t
