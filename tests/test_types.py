"""Callers are typed: the examples in the documentation pass mypy's strict checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import PAGES, blocks

import eventstore

EXAMPLES = [
    block.text
    for page in PAGES
    if not page.startswith("docs/guides/frameworks/")  # they are in the style of their frameworks, without annotations
    for block in blocks(page)
    if block.language == "python"
]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_examples_in_the_documentation_pass_mypy_strict(tmp_path: Path) -> None:
    assert len(EXAMPLES) >= 8
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(example)
    installed_in = Path(eventstore.__file__).parents[1]
    where = {} if installed_in.name == "site-packages" else {"MYPYPATH": str(installed_in)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, sorted(tmp_path.glob("*.py")))],
        cwd=tmp_path,
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
