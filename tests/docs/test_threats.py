"""The tests and objects that the threat model names exist."""

from __future__ import annotations

import ast
import re

import pytest
from support.environment import TREE

TEXT = (TREE / "docs/concepts/threats.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:[a-z_]+/)+\w+\.(?:py|sql)(?:::\w+)?)`", TEXT)))

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_or_object_exists(name: str) -> None:
    path, _, test = name.partition("::")
    text = (TREE / path).read_text(encoding="utf-8")
    if test:
        names = {n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert test in names


def test_every_claim_names_a_test_or_object() -> None:
    rows = [line for line in TEXT.splitlines() if re.match(r"\| (?!wants|could|---)", line)]
    assert len(rows) > 20
    for row in rows:
        assert re.search(r"`[a-z_/]+\w+\.(py|sql)", row.split("|")[3]), row
