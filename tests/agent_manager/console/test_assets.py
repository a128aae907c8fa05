"""The parts of the pages: vendored scripts, translations, and settings that are shown without secrets."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader
from pydantic import SecretStr

from agent_manager.auth import TokenScope
from agent_manager.console import rendering
from agent_manager.console.operations import visible_settings
from agent_manager.console.rendering import FOLDER, read_catalog
from agent_manager.doctor import Severity
from agent_manager.server.rebuilds import RebuildState
from agent_manager.settings import ServerSettings
from eventstore import Role, TaskStatus
from projections.search import HitKind

pytestmark = pytest.mark.any_server

TEMPLATES = sorted((FOLDER / "templates").iterdir())


def test_vendored_scripts_are_the_files_that_were_vendored() -> None:
    listed = dict(
        re.findall(r"^\| (\S+\.js) .*`([0-9a-f]{64})` \|$", (FOLDER / "vendor" / "README.md").read_text(), re.M)
    )
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (FOLDER / "vendor").glob("*.js")}
    assert found == listed
    assert all((FOLDER / "vendor" / f"{name.partition('.')[0]}.LICENSE").exists() for name in found)


def test_every_text_of_the_pages_is_translated() -> None:
    environment = Environment(loader=FileSystemLoader(FOLDER / "templates"), extensions=["jinja2.ext.i18n"])
    catalog = read_catalog("pt")
    texts = {
        text
        for file in TEMPLATES
        for _, _, found in environment.extract_translations(file.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
        for text in ([found] if isinstance(found, str) else found or ())
        if isinstance(text, str)
    }
    assert len(texts) > 200
    assert sorted(texts - catalog.keys()) == []
    words = {
        *Role,
        *TaskStatus,
        *RebuildState.__args__,
        *rendering.THEMES,
        "answered",
        "abandoned",
        "own",
        "read",
        "write",
    }
    words |= {*HitKind.__args__, *Severity, "active", "archived", "deleted", "outdated", "disabled", "user", "agent"}
    words |= {"revoked", "expired", "suspended", "enabled"}
    assert sorted(words - catalog.keys()) == []
    assert sorted(catalog.keys() - texts - words) == [], "what no page shows any more"
    for text, translation in catalog.items():
        assert set(re.findall(r"%\(\w+\)s", text)) == set(re.findall(r"%\(\w+\)s", translation)), text
        assert '"' not in text + translation, "texts stand in attributes"
        assert "<" not in text + translation


def test_templates_have_no_inline_scripts_or_styles() -> None:
    for file in TEMPLATES:
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:|\|safe|hx-on|hx-vals=.js", file.read_text()), (
            file.name
        )


def test_settings_are_shown_without_their_secrets(clean_environment: None, tmp_path: Path) -> None:
    settings = ServerSettings(
        database_url="postgresql://ana:hunter2@db/x",
        jwt_key=SecretStr("hunter2" * 8),
        agent_credentials=str(tmp_path),
        audit_command="curl --header 'Authorization: hunter2' https://example.com",
        audit_url="https://ana:hunter2@example.com/log",
    )
    shown = {each["variable"]: each["value"] for each in visible_settings(settings)}
    assert shown["DATABASE_URL"] == "set, not shown"
    assert "hunter2" not in str(shown)
    assert shown["EVENTSTORE_TENANT"] == "default"


def test_scopes_have_the_names_that_the_frame_asks_for() -> None:
    assert {"read", "write", "audit", "admin"} <= {scope.value for scope in TokenScope}
