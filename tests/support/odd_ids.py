"""Ids that a path, a shell or a program could take for something else."""

from __future__ import annotations

ODD_IDS = (
    "app/user/session", "a/", "/a", "//", "100%", "%2F", "%00", "%", "a?b=c&d", "?", "a#b", "#", " ", " a  b ", ".",
    "..", "...", "../..", "a/../b", "./a", "a+b", "+", "a:b", "urn:x:1", "https://agents.example/?a=b#c", "a;b,c",
    "a\\b", "'\"", "<a>", "é/ü", "日本", "\U0001f600", "e\u0301", "\u00e9", "a\tb", "a\nb", "\u2028", "{conversation}",
    "null", "7B6C0E02-1F0E-4D0C-9A43-0F6F1D0B7F2E", "x" * 900, "-x", "--help", "@", "*", "~", "$HOME", "`id`",
    "messages", "state",
)  # fmt: skip
