-- As what role, and with what plans (see keep_plans.sql), the transaction appends: for a session that a pooler lent.
SELECT set_config('role', $1, true),
       set_config('plan_cache_mode', 'force_generic_plan', true),
       set_config('enable_seqscan', 'off', true),
       set_config('jit', 'off', true)
