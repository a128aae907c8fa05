SELECT log_horizon()
