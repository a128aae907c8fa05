"""Access to PostgreSQL: the embedded server, connections, pools, migrations."""
