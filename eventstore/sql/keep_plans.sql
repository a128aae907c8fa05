-- A plan that was made while the log was short must serve when it is long; and making one for every append would take
-- longer than the append. Why nothing is compiled, configure.sql says; a pooler may have lent that another session.
SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false)
