"""Every block in the documentation can be run: all blocks of a page, in order, against one database."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.main
from support.adk import make_sqlite
from support.commandline import Eventstore
from support.demoapp import Manager, serve
from support.environment import child_environment
from support.pages import PAGES, Block, blocks, shell_lines
from support.processes import Commands

from agent_manager.cli.main import app

KEEP_RUNNING = ("up", "project")
DOCUMENTED_ADDRESS = "http://127.0.0.1:8080"
NOT_RUN = {page: [block.reason for block in blocks(page) if block.reason] for page in PAGES}
SYMPTOMS_FIRST = "docs/guides/troubleshooting.md"
"""The blocks of this page are run by tests/agent_manager/doctor/test_troubleshooting.py, with each symptom."""
RUN = [
    page
    for page in PAGES
    if page != SYMPTOMS_FIRST and any(block.language in ("bash", "python", "sql", "json") for block in blocks(page))
]
FRAMEWORKS = "docs/guides/frameworks/"
"""The folder of the pages whose frameworks need not be installed."""
FIRST = ("README.md", "docs/tutorial.md")
"""The pages of the first ten minutes; the others are run with the slow tests."""


def parse(arguments: list[str]) -> None:
    """Fail unless the command and its options exist."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    command.make_context("eventstore", rest)


@contextmanager
def demo_application() -> Iterator[str]:
    """Serve the endpoints of the A2A demo."""
    manager = Manager()
    manager.create_conversation("a")
    with serve(0, manager) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Page:
    """Runs the blocks of a page."""

    def __init__(
        self, eventstore: Eventstore, started: Commands, patch: pytest.MonkeyPatch, url: str, demo: str, page: str
    ) -> None:
        self._eventstore, self._patch, self._url, self._demo = eventstore, patch, url, demo
        self._address = ""
        if any("curl " in block.text or block.language == "python" for block in blocks(page)):
            up = started.start("up", "--port", "0", DATABASE_URL=url)
            up.until_printed("Ctrl-C")
            [self._address] = re.findall(r"^HTTP +(http://[^;]+);", up.out, re.MULTILINE)

    def run(self, block: Block) -> None:
        """Run a block, or write it to its file; except for those that other tests run, on machines of their own."""
        if block.language in ("sh", "ini"):
            return
        if block.language == "json":
            for line in [block.text] if block.text.startswith("{\n") else block.text.splitlines():
                json.loads(line)
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in shell_lines(block):
                self._shell(line)
        elif block.language == "python":
            self._process([sys.executable, "-W", "error", "-c", block.text])
        elif block.language == "sql":
            with psycopg.connect(self._url) as connection:
                for statement in filter(str.strip, block.text.split(";")):
                    assert connection.execute(statement.encode()).fetchall(), statement

    def _shell(self, line: str) -> None:
        program, *arguments = shlex.split(line.replace(DOCUMENTED_ADDRESS, self._address or DOCUMENTED_ADDRESS))
        match program:
            case "eventstore" if arguments[0] in KEEP_RUNNING:
                parse(arguments)
            case "eventstore":
                given = [self._demo if word == "http://localhost:12000" else word for word in arguments]
                with self._patch.context() as patch:
                    if "restore" in given:  # into a new embedded server, as the page says
                        patch.delenv("DATABASE_URL", raising=False)
                    result = self._eventstore(*given)
                assert result.code == 0 or arguments[0] == "doctor", (line, result.err)
                assert result.out or arguments[0] not in ("search", "messages", "conversations"), line
            case "curl":
                stream = ["--max-time", "2"] if "/stream" in line else []
                out = self._process(["curl", "-sS", *stream, *arguments], (0, 28) if stream else (0,))
                answer = {} if stream or line.endswith("/metrics") else json.loads(out)
                assert answer.get("status", 200) == 200 or "detail" not in answer, (line, answer)
            case "python":
                self._process([sys.executable, "-W", "error", *arguments])
            case "export":
                name, _, value = arguments[0].partition("=")
                self._patch.setenv(name, value)
            case _:
                pytest.fail(f"{line}: give the block a comment that says why it cannot be run")

    def _process(self, arguments: list[str], codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=60, env=child_environment(), check=False
        )
        assert done.returncode in codes, (arguments, done.stderr)
        assert done.stdout, arguments
        assert not done.stderr or codes != (0,), (arguments, done.stderr)
        return done.stdout


@pytest.mark.parametrize("page", [pytest.param(page, marks=() if page in FIRST else pytest.mark.slow) for page in RUN])
def test_the_blocks_of_a_page_run_in_order(
    page: str, eventstore: Eventstore, started: Commands, monkeypatch: pytest.MonkeyPatch, page_url: str
) -> None:
    if page.startswith(FRAMEWORKS):
        for block in blocks(page):
            for module in re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE):
                pytest.importorskip(module)
    monkeypatch.syspath_prepend(".")
    make_sqlite(Path("sessions.db"), "2.x")
    with demo_application() as demo:
        running = Page(eventstore, started, monkeypatch, page_url, demo, page)
        for block in blocks(page):
            if not block.reason:
                running.run(block)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    assert sum(map(len, NOT_RUN.values())) <= 12
    assert all(len(reason.split()) >= 3 for reasons in NOT_RUN.values() for reason in reasons)
