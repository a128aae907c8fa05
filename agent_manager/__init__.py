"""What applications and people touch: importing existing data, and the command line."""
