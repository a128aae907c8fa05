(SELECT false AS is_expected, t::text AS row FROM {live} t EXCEPT ALL SELECT false, t::text FROM {other} t LIMIT %(most)s)
 UNION ALL
(SELECT true, t::text FROM {other} t EXCEPT ALL SELECT true, t::text FROM {live} t LIMIT %(most)s)
