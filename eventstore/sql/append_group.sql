SELECT a.outcome, a.position, a.version, a.timestamp, a.problem
  FROM append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS a
