"""Tools for the developers of this project; they are not part of the wheel."""
