"""Each command that the program, its files or its pages suggest works on a new store as it is suggested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commandline import Eventstore
from support.environment import TREE
from support.processes import Commands

from agent_manager.cli.main import MODULES

SOURCES = [
    path
    for folder in ("agent_manager", "eventstore", "projections", "db/schema", "deploy")
    for path in (TREE / folder).rglob("*")
    if path.suffix in (".py", ".sql", ".yml", ".conf")
] + [TREE / "docker-compose.yml", TREE / "Dockerfile"]
"""Files with texts that the program prints, or that an operator reads; tests/docs runs the blocks of the pages."""

SUGGESTION = re.compile(
    rf"(?<!from )\beventstore ((?:{'|'.join(MODULES)})\b"
    r"(?: (?:add|create|list|verify|restore|revoke|suspend|bind|unbind|logins|up|roles|down|status"
    r"|remove|run|user|key|apply|checkpoints|rotate|retire|--[a-z-]+|\w+\.jsonl|[A-Z]{2,})\b(?!=))*)"
)
PLACEHOLDERS = {
    "AGE": "90d",
    "FILE": "audit.key",
    "ID": "sample-trip",
    "NAME": "ci",
    "TENANT": "acme",
    "USER": "ana",
    "FILE.jsonl": "chats.jsonl",
}
KEEP_RUNNING = ("up", "project")
NEEDS_MORE = {
    "audit key retire ID": "needs another key, as in tests/agent_manager/audit",
    "audit verify": "needs a sealed log, as in tests/agent_manager/audit",
    "conversation ID --time": "shows its time as an example",
    "tenants bind TENANT LOGIN": "needs a login, which tests/agent_manager/cli/test_tenants.py creates",
    "backup restore": "needs an empty database, as in tests/agent_manager/backup",
    "doctor": "its exit code is what it finds, as in tests/agent_manager/doctor",
    "hold remove": "needs a hold, as in tests/agent_manager/cli/test_retention.py",
    "rollback": "needs the backup of an import",
    "migrate roles": "needs a server without roles, as in tests/agent_manager/cli/test_migrate.py",
}
"""Suggestions that a new store cannot follow, because of what they suggest."""


def suggestions() -> list[str]:
    found = set()
    for path in SOURCES:
        text = re.sub(r"\{[^{}\n]*\}", "", path.read_text(encoding="utf-8"))  # the values in f-strings
        text = re.sub(r'"\s*\n\s*f?"', "", text)  # literals that Python joins
        found |= {re.sub(" +", " ", match[1]) for match in SUGGESTION.finditer(text)}
    return sorted(text for text in found - NEEDS_MORE.keys() if text.split()[0] not in KEEP_RUNNING)


def test_suggestions_are_found() -> None:
    assert {"keys add NAME", "tenants add TENANT", "users add USER", "seed", "import FILE.jsonl"} <= {*suggestions()}


@pytest.fixture
def new_store(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, started: Commands, empty_database_url: str
) -> Eventstore:
    """The command line on a store that "up" has just created."""
    Path("chats.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "content": "hello"}]}\n')
    up = started.start("up", "--port", "0", DATABASE_URL=empty_database_url)
    up.until_printed("Ctrl-C")
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    monkeypatch.setenv("EVENTSTORE_BACKUP_DIR", "backups")
    monkeypatch.setenv("EVENTSTORE_AUDIT_KEY", "audit.key")
    return eventstore


def test_each_suggestion_works_as_the_first_command_on_a_new_store(new_store: Eventstore) -> None:
    failed = {}
    for suggestion in ["seed", *suggestions()]:  # "messages ID" needs a conversation
        result = new_store(*(PLACEHOLDERS.get(word, word) for word in suggestion.split()))
        if result.code != 0:
            failed[suggestion] = result.err
    assert failed == {}


def test_the_first_key_of_the_default_tenant_is_one_command(new_store: Eventstore) -> None:
    named = new_store("keys", "add", "ci", "--tenant", "default")
    assert (named.code, named.out.startswith("es_")) == (0, True)
    assert new_store("keys", "add", "ci").code == 0


@pytest.mark.parametrize("command", ["up", "project"])
@pytest.mark.slow
def test_services_that_are_suggested_start_on_a_new_store(
    started: Commands, empty_database_url: str, command: str
) -> None:
    assert started.start("migrate", "up", DATABASE_URL=empty_database_url).wait() == 0
    service = started.start(command, *(["--port", "0"] if command == "up" else []), DATABASE_URL=empty_database_url)
    service.until_printed("Ctrl-C")
    assert service.interrupt() == 0
