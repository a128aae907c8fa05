"""Functions with the rights of their owner find only what their owner put where they look."""

from __future__ import annotations

import psycopg


def test_functions_with_the_rights_of_their_owner_pin_their_search_path(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT p.oid::regprocedure::text, p.proconfig FROM pg_proc p "
            "WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert len(rows) > 5
    for function, settings in rows:
        paths = [setting for setting in settings or () if setting.startswith("search_path=")]
        assert paths, function
        # Temporary objects come last, so that nobody puts one in front.
        assert paths[0].replace('"', "").split("=")[1].split(", ") == ["public", "pg_temp"], (function, paths)
