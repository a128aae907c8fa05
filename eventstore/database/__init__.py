"""Reaching PostgreSQL: settings, the embedded server, pools, migrations."""
