"""The site is built without network, and its pages load nothing from other hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs.external import external_resources

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize(
    ("html", "address"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "//fonts.example/x.css"),
        ('<img src="HTTP://img.example/x.png">', "HTTP://img.example/x.png"),
        ("<style>@import 'https://css.example/x.css';</style>", "https://css.example/x.css"),
        ('<p style="background: url(https://img.example/x.png)">', "https://img.example/x.png"),
    ],
)
def test_external_resources_of_a_page_are_found(tmp_path: Path, html: str, address: str) -> None:
    (tmp_path / "index.html").write_text(f"<html>{html}</html>")
    assert external_resources(tmp_path) == [("index.html", address)]


def test_links_and_local_files_are_not_external_resources(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<a href="https://example.org">x</a><script src="x.js"></script>')
    (tmp_path / "x.css").write_text("p { background: url(x.png) }")
    assert external_resources(tmp_path) == []


@pytest.mark.slow
def test_the_site_is_built_without_external_resources(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    from tools.docs.__main__ import main

    assert main(tmp_path / "site") == 0
    pages = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "reference/cli.html", "concepts/order.html"} <= pages
    assert "eventstore migrate up" in (tmp_path / "site/reference/cli.html").read_text(encoding="utf-8")
