"""Tools for the developers of this project: in the repository, not in the wheel."""
