"""The figures of docs/guides/sizing.md are those that a measurement gives, within a generous bound."""

from __future__ import annotations

import json
import re

import pytest
from support.commandline import program_in_process
from support.pages import text_of

from tools.sizing import main

FIGURES = {
    name: float(value.replace(",", ""))
    for name, value in re.findall(
        r"^\| ([^|]+: [^|]+|events [^|]+) \| ([\d.,]+) \|$", text_of("docs/guides/sizing.md"), re.MULTILINE
    )
}
BYTES_AND_MEMORY, RATES = 2.0, 5.0
"""The factors by which figures may differ."""


@pytest.mark.slow
def test_the_figures_of_the_guide_are_those_that_are_measured(
    empty_database_url: str,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    result = program_in_process("sizing", main, monkeypatch, capsys)("--events", "5000", "--json")
    assert result.code == 0, result.err
    measured = json.loads(result.out)
    assert set(measured) == set(FIGURES)
    for name, value in FIGURES.items():
        bound = RATES if "second" in name else BYTES_AND_MEMORY
        assert value / bound < measured[name] < value * bound, name


def test_the_parts_of_a_message_on_disk_add_up() -> None:
    parts = [value for name, value in FIGURES.items() if re.match("bytes an event: (log|search|statistics|read)", name)]
    assert sum(parts) == pytest.approx(FIGURES["bytes an event: everything"], abs=2)
