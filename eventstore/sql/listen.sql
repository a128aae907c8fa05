-- The channel, and what the listening session needs: statements that are planned once, by the index whatever the
-- statistics say; and an end for a session whose client is gone without a word, for it would sleep for ever.
SELECT wake_channel(),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('idle_session_timeout', %(idle)s, false)
