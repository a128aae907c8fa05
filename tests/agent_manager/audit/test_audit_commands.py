"""``eventstore audit``: what a person types, and what a stranger checks with the public key alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Eventstore, program_in_process
from support.environment import TREE, child_environment
from support.processes import Commands
from support.sealing import NAME, RECOMPUTE, append, tampering
from support.waiting import until

from agent_manager.cli import main
from agent_manager.settings import ServerSettings
from eventstore import EventStore

pytestmark = pytest.mark.slow


@pytest.fixture
def eventstore(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: ServerSettings, tmp_path: Path
) -> Eventstore:
    """The command, on a database with 300 messages that are sealed."""
    url = settings.server_url()
    assert url is not None
    for variable, value in {
        "DATABASE_URL": url,
        "EVENTSTORE_AUDIT_KEY": str(tmp_path / "audit.key"),
        "EVENTSTORE_AUDIT_FILE": str(tmp_path / "published"),
        "EVENTSTORE_AUDIT_SECONDS": "0.1",
    }.items():
        monkeypatch.setenv(variable, value)
    call = program_in_process("eventstore", main, monkeypatch, capsys)
    created = call("audit", "key", "create", str(tmp_path / "audit.key"), "--name", NAME)
    assert created.code == 0
    assert created.out.startswith(f"{NAME}+")
    assert "EVENTSTORE_AUDIT_KEY" in created.err
    more(settings, 300)
    assert "300 events are sealed" in call("audit", "seal").out
    return call


def more(settings: ServerSettings, number: int) -> None:
    async def add() -> None:
        async with EventStore(settings) as store:
            await append(store, number)

    asyncio.run(add())


def answer(program: Eventstore, *arguments: str, code: int = 0) -> Any:
    result = program(*arguments, "--json")
    assert result.code == code, result.err
    return json.loads(result.out)


def test_an_intact_log_verifies_until_somebody_changes_it(eventstore: Eventstore, superuser_url: str) -> None:
    result = eventstore("audit", "verify")
    assert result.code == 0
    assert result.lines[0].startswith("intact: 300 events are as they were sealed, by 1 checkpoint(s), the newest of ")
    intact = answer(eventstore, "audit", "verify")
    assert (intact["intact"], intact["sealed"], intact["unsealed"], intact["faults"]) == (True, 300, 0, [])
    with tampering(superuser_url) as superuser:
        superuser.execute("UPDATE events SET actor = 'nobody' WHERE position = 42")
        superuser.execute(RECOMPUTE.encode())
    changed = eventstore("audit", "verify")
    assert changed.code == 1
    assert changed.err.startswith("changed: the event at position 42 (version 42 of conversation ")
    assert "NOT as it was sealed" in changed.out
    [fault] = answer(eventstore, "audit", "verify", "--jobs", "1", code=1)["faults"]
    assert (fault["kind"], fault["position"]) == ("changed", 42)
    assert fault["event_id"] in eventstore("history", fault["conversation_id"], "--json").out
    refused = eventstore("audit", "prove", "42")
    assert refused.code == 1
    assert "was changed since it was sealed" in refused.err


def test_a_stranger_checks_a_proof_with_the_public_key_alone(
    eventstore: Eventstore, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public = eventstore("audit", "key", "show").out.strip()
    message = answer(eventstore, "history", "--limit", "1")["items"][0]
    Path("by-id").write_text(eventstore("audit", "prove", message["id"]).out, encoding="utf-8")
    Path("as-json").write_text(eventstore("audit", "prove", "7", "--json").out, encoding="utf-8")
    assert eventstore("audit", "prove", "7", "--output", "written").code == 0
    more(settings, 10)
    eventstore("audit", "seal")
    Path("old").write_text(eventstore("audit", "checkpoints", "--json").out, encoding="utf-8")
    newest, oldest = json.loads(Path("old").read_text(encoding="utf-8"))["items"]
    Path("kept").write_text(oldest["note"], encoding="utf-8")
    Path("consistency").write_text(
        eventstore("audit", "consistency", "kept", str(newest["size"])).out, encoding="utf-8"
    )
    for variable in ("DATABASE_URL", "EVENTSTORE_AUDIT_KEY", "EVENTSTORE_AUDIT_FILE"):
        monkeypatch.delenv(variable)
    for file, what in {
        "by-id": "valid: the event ", "as-json": "valid: the event ", "written": "valid: the event ",
        "consistency": f"valid: the log {NAME} of 310 events begins with the 300 events of the older checkpoint",
        "kept": f"valid: 1 checkpoint(s) of {NAME}, the newest of 300 events",
    }.items():  # fmt: skip
        result = eventstore("audit", "check", file, "--key", public)
        assert (result.code, result.out.startswith(what)) == (0, True), (result.out, result.err)
        assert answer(eventstore, "audit", "check", file, "--key", public)["valid"]
        if file == "as-json":
            continue
        script = [sys.executable, str(TREE / "docs/verify_sealed_log.py"), file, public]
        done = subprocess.run(script, capture_output=True, text=True, env=child_environment(), check=False)
        assert (done.returncode, done.stdout.startswith(f"valid: {NAME}")) == (0, True), done.stderr
    text = Path("written").read_text(encoding="utf-8")
    Path("forged").write_text(text.replace("index 6", "index 5"), encoding="utf-8")
    assert answer(eventstore, "audit", "check", "forged", "--key", public, code=1)["valid"] is False
    Path("cut").write_text(text.rpartition("— ")[0], encoding="utf-8")
    assert "is signed by no key of its log" in eventstore("audit", "check", "cut", "--key", public).err
    without = eventstore("audit", "check", "written")
    assert (without.code, "no public key is given" in without.err) == (1, True)


def test_an_old_checkpoint_convicts_a_log_that_was_sealed_anew(
    eventstore: Eventstore, superuser_url: str, tmp_path: Path
) -> None:
    (tmp_path / "published").rename(tmp_path / "kept")
    with tampering(superuser_url) as superuser:
        superuser.execute("DELETE FROM events WHERE position > 200")
        superuser.execute("TRUNCATE audit_tiles, audit_checkpoints")
    assert eventstore("audit", "seal").code == 0
    assert eventstore("audit", "verify").code == 0
    convicted = eventstore("audit", "verify", "--checkpoint", str(tmp_path / "kept"))
    assert convicted.code == 1
    assert "the log has 200 events, and 300 were sealed" in convicted.err
    refused = eventstore("audit", "consistency", "200", str(tmp_path / "kept"))
    assert "fewer than the checkpoint of size 300" in refused.err


def test_keys_are_created_once_rotated_and_retired(eventstore: Eventstore, tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert eventstore("audit", "key", "create", str(path), "--name", "x").code == 1
    [old] = answer(eventstore, "audit", "key", "show")
    assert len(answer(eventstore, "audit", "key", "rotate")) == 2
    left = answer(eventstore, "audit", "key", "retire", old["id"])
    assert [each["signs"] for each in left] == [True, False]
    assert left[1]["key"] == old["key"]
    assert eventstore("audit", "seal").code == 0
    assert eventstore("audit", "verify").code == 0
    assert "is the only private key" in eventstore("audit", "key", "retire", left[0]["id"]).err
    assert "has no such private key" in eventstore("audit", "key", "retire", "00000000").err


WRONG = {
    "a position without an event": (["audit", "prove", "4711"], "has no event at position 4711"),
    "no id": (["audit", "prove", "x"], "is neither a position nor the id of an event"),
    "an unknown id": (["audit", "prove", "00000000-0000-4000-8000-000000000000"], "has no event with the id"),
    "an unknown size": (["audit", "consistency", "1", "300"], "no checkpoint has the size 1"),
    "a file that does not exist": (["audit", "check", "nothing"], "No such file or directory"),
    "a file that is no proof": (["audit", "check", "audit.key"], "is not a checkpoint"),
    "a key that is none": (["audit", "check", "published", "--key", "abc"], "is not a public key"),
    "a name with a space": (["audit", "key", "create", "new", "--name", "a b"], "without spaces and plus signs"),
    "a policy that is none": (["audit", "verify", "--policy", "audit.key"], "is not a line of a policy"),
    "a checkpoint file that is none": (["audit", "verify", "--checkpoint", "nothing"], "is not a file"),
}


@pytest.mark.parametrize(("arguments", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_named_in_a_line(
    arguments: list[str], expected: str, eventstore: Eventstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = eventstore(*arguments)
    assert (result.code, result.out) == (1, "")
    assert expected in result.err
    assert result.err.startswith("eventstore: error: ")
    assert len(result.err.splitlines()) == 1


def test_workers_seal_what_is_appended_and_status_shows_it(
    eventstore: Eventstore, started: Commands, settings: ServerSettings, tmp_path: Path
) -> None:
    worker = started.start("project")
    worker.until_printed("Ctrl-C")
    assert f"Sealed log  {NAME}, signed by " in worker.out
    more(settings, 20)
    until(lambda: answer(eventstore, "status")["sealed"]["events"] == 320, "everything is sealed")
    line = next(line for line in eventstore("status").lines if line.startswith("sealed"))
    assert "320 events up to position 320" in line
    assert NAME in line


def test_a_file_in_the_working_directory_may_not_name_the_command(
    eventstore: Eventstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("EVENTSTORE_AUDIT_COMMAND=true\n", encoding="utf-8")
    assert "EVENTSTORE_AUDIT_COMMAND names code to run" in eventstore("audit", "verify").err


def test_workers_do_not_start_with_a_file_of_keys_that_is_damaged(eventstore: Eventstore, tmp_path: Path) -> None:
    (tmp_path / "audit.key").write_text("PRIVATE+KEY+x+y+z\n", encoding="utf-8")
    for command in (["project"], ["up", "--no-http"], ["audit", "seal"], ["audit", "verify"]):
        result = eventstore(*command)
        assert result.code == 1
        assert "line 1: a private key is damaged" in result.err
