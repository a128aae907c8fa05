"""Agents are named by a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_manager.a2a import parts_text
from agent_manager.agents.agent import Context, Reply
from agent_manager.agents.agent_spec import agent_from_settings, agent_from_spec
from agent_manager.agents.local import CallableAgent
from agent_manager.agents.remote import RemoteAgent
from eventstore import Settings
from eventstore.errors import InputError, SettingsError

pytestmark = pytest.mark.any_server

MODULE = """
async def f(message):
    return "from here"

class Nested:
    f = staticmethod(f)

five = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "of_the_caller.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # undone after the test; agent_from_spec() adds nothing then
    return "of_the_caller"


def test_a_word_names_a_built_in_agent() -> None:
    answer = agent_from_spec("echo")
    assert isinstance(answer, CallableAgent)
    assert answer.name == "echo"
    remote = agent_from_spec("http://localhost:10000")
    assert isinstance(remote, RemoteAgent)
    assert remote.name == "http://localhost:10000"


@pytest.mark.parametrize("path", ["f", "Nested.f"])
async def test_a_path_names_a_function_of_the_application(module: str, path: str) -> None:
    [update] = [update async for update in agent_from_spec(f"{module}:{path}")({"parts": []}, Context())]
    assert isinstance(update, Reply)
    assert parts_text(update.message["parts"]) == "from here"


def test_the_setting_names_an_agent(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent_from_settings(Settings()) is None
    monkeypatch.setenv("EVENTSTORE_ANSWER", "echo")
    answer = agent_from_settings(Settings())
    assert isinstance(answer, CallableAgent)
    assert answer.name == "echo"
    for wrong in ("parrot", "ftp://host"):
        with pytest.raises(SettingsError, match="EVENTSTORE_ANSWER: "):
            agent_from_settings(Settings(answer=wrong))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "expected echo, the URL"),
        ("parrot", "expected echo, the URL"),
        ("module:", "expected echo, the URL"),
        ("a b:c", "expected echo, the URL"),
        ("of_the_caller:g", "of_the_caller has no g"),
        ("of_the_caller:five", "is a int, expected a function"),
        ("of_nobody_at_all:f", "No module named"),
        ("ftp://host", "is not the URL of an agent"),
    ],
)
def test_a_text_that_names_no_agent_is_rejected(module: str, spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        agent_from_spec(spec)
    assert isinstance(error.value, SettingsError) or "://" in spec
