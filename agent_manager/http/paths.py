"""Routing by the path as it was sent: a percent-encoded ``/`` is part of an id, not a separator.

ASGI servers decode the path before anything is routed. ``DELETE /v1/conversations/x%2Fmembers%2Fbob``, meant for the
conversation ``x/members/bob``, would then remove the member ``bob`` of the conversation ``x``. So routes match a path
in which every segment is percent-encoded in one canonical way, and their parameters are decoded afterwards. Whatever
is derived from the path of a request, such as keys of caches, differs wherever the resources differ.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.types import Scope


def canonical_path(scope: Scope) -> str | None:
    """Return the path of a request with each segment in canonical encoding; None if a segment is not UTF-8."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # optional in ASGI; without it, an encoded slash can no longer be told from a separator
        return quote(scope["path"])
    try:
        # Query strings are no part of it in ASGI, but some test clients leave them in.
        segments = [unquote_to_bytes(segment).decode() for segment in raw.partition(b"?")[0].split(b"/")]
    except UnicodeDecodeError:
        return None
    return "/".join(quote(segment, safe="") for segment in segments)


def decode_parameters(scope: Scope) -> None:
    """Decode what a route has found in a canonical path."""
    found = scope.get("path_params", {})
    scope["path_params"] = {name: unquote(value) for name, value in found.items()}
