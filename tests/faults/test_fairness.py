"""A tenant does the worst that its limits allow, and another one notices little: it waits no longer, and is refused
nothing.

The server is a process of its own, and so is the attacker, which runs at the lowest priority: it stands for another
machine. Measurements at rest and under attack alternate, so that both see the same noise. Beside appends, pages and
searches, requests for a path that does not exist are measured ("loop"): they wait for nothing but the server's event
loop.

``EVENTSTORE_TEST_ATTACK_SECONDS`` is the length of the long test's attacks together; it runs only if that is set,
because its figures mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter

import psutil
import pytest
from support.environment import child_environment
from support.plainhttp import PlainClient
from support.processes import Commands, Running

from agent_manager.auth import Directory, TokenScope
from agent_manager.settings import ServerSettings
from eventstore import EventStore, Settings

KINDS = ("search", "body", "stream", "bulk", "page")
ATTACK_SECONDS = float(os.environ.get("EVENTSTORE_TEST_ATTACK_SECONDS", "0"))
KEYS = 4
TEXTS = ("the train to Lisbon was late", "a boat to Porto", "we fly to Faro tomorrow", "o comboio para Coimbra")
ATTACKER = (sys.executable, "-m", "support.attacker")
PAUSE_SECONDS = 0.015
"""From one request of the other tenant to the next, which keeps within the rate of a key."""
HALF_OPEN = 10_000
OTHER_FILES = 200
"""Files that a server has open besides the connections that it keeps; some are being ended."""
MAX_MEMORY = 1024 * 2**20
"""The memory that the server takes with the default settings, whatever clients do."""
LARGE_MESSAGES, MEMORY_SECONDS = 16, max(8, ATTACK_SECONDS)
MAX_SECONDS = 5.0
"""The time that any request may take on a busy machine."""
TIMES = 3
"""The cost of an attack: so many times the time at rest."""
FLOOR_SECONDS = 0.05
"""Times at rest are not taken for shorter than this: on a busy machine of two processors, the scheduler alone makes
one request in twenty so slow."""
SHARED_FLOOR_SECONDS = 0.2
"""The same for the short attack, during which other tests occupy the processors as well."""
BUSY = 2
"""Runnable processes for each processor, before the test begins, from which on it can tell nothing."""
BEGIN_SECONDS = 5
ATTACKER_SECONDS = 120
"""The time that the attacker has to begin and to end: at the lowest priority, both take long on a busy machine."""


@dataclass
class Times:
    """The measurements of one tenant.

    Attributes:
        seconds: of the requests, by what they were.
        refused: answers that were refusals.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list)

    def percentile(self, what: str, percent: int = 99) -> float:
        """Return the seconds within which so many of a hundred requests were answered."""
        return sorted(self.seconds[what])[-(-len(self.seconds[what]) * percent // 100) - 1]

    def __str__(self) -> str:
        return ", ".join(
            f"{what} {1000 * self.percentile(what, 50):.0f}/{1000 * self.percentile(what):.0f} ms ({len(seconds)})"
            for what, seconds in self.seconds.items()
        )


@dataclass
class Site:
    """A server, an attacker's keys, and another tenant's client.

    Attributes:
        target: the attacker's conversation.
        token: of the other tenant.
    """

    process: Running
    address: tuple[str, int]
    tokens: list[str]
    target: str
    client: PlainClient
    conversation: str
    token: str

    async def measure(self, seconds: float, times: Times) -> None:
        """Append, read and search for so long, as the other tenant."""
        end = perf_counter() + seconds
        number = 0
        while perf_counter() < end:
            number += 1
            path = f"/v1/conversations/{self.conversation}/messages"
            message = {"role": "user", "content": f"{TEXTS[number % len(TEXTS)]} {number}"}
            for what, request in (
                ("append", ("POST", path, message)),
                ("page", ("GET", f"{path}?limit=50&newest_first=true", None)),
                ("search", ("GET", f"/v1/search?q={('Lisbon', 'Porto', 'comboio')[number % 3]}+{number}", None)),
                ("loop", ("GET", "/nothing", None)),
            ):
                began = perf_counter()
                answer = await self.client.request(*request)
                took = perf_counter() - began
                times.seconds[what].append(took)
                if answer.status not in (200, 201) and what != "loop":
                    times.refused.append(f"{what}: {answer.status} {answer.body[:200]!r}")
                await asyncio.sleep(PAUSE_SECONDS - took)

    async def attacked(self, kinds: Iterable[str], seconds: float, times: Times, begin: Times | None = None) -> str:
        """Measure while the attacker attacks; return what the attacker was answered.

        Args:
            begin: takes what is measured in the first seconds, if given.
        """
        attacker = await asyncio.create_subprocess_exec(
            "nice", "-n", "19", *ATTACKER, *map(str, self.address), ",".join(kinds), self.target, *self.tokens,
            stdout=asyncio.subprocess.PIPE, env=child_environment(), limit=2**20,
        )  # fmt: skip
        try:
            assert attacker.stdout is not None
            assert await asyncio.wait_for(attacker.stdout.readline(), ATTACKER_SECONDS) == b"attacking\n"
            if begin is not None:
                await self.measure(BEGIN_SECONDS, begin)
            await self.measure(seconds, times)
            attacker.send_signal(signal.SIGTERM)
            return (await asyncio.wait_for(attacker.stdout.read(), ATTACKER_SECONDS)).decode().strip()
        finally:
            with suppress(ProcessLookupError):
                attacker.kill()
            await attacker.wait()


@pytest.fixture
async def site(settings: Settings, started: Commands) -> AsyncIterator[Site]:
    """A server with two tenants."""
    assert settings.database_url is not None
    process = started.start(
        "up", "--port", "0", "--require-tokens", DATABASE_URL=settings.database_url.get_secret_value()
    )
    process.until_printed("Ctrl-C")
    port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", process.out)[0])
    address = ("127.0.0.1", port)
    scopes = (TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)
    async with EventStore(settings) as store:
        directory = Directory(store)
        for tenant in ("attacker", "other"):
            await directory.add_tenant(tenant)
        tokens = [
            (await directory.add_key(tenant, "tests", scopes=scopes)).token.get_secret_value()
            for tenant in ("attacker",) * KEYS + ("other",)
        ]
    *attackers, other = tokens
    client, attacker = PlainClient(address, other), PlainClient(address, attackers[0])
    made = [(await one.request("POST", "/v1/conversations", {})).json()["id"] for one in (client, attacker)]
    attacker.close()
    site = Site(process, address, attackers, made[1], client, made[0], other)
    try:
        await site.measure(2, Times())  # statements are prepared, connections made, the read tables filled
        yield site
    finally:
        client.close()


@pytest.fixture
def most_files() -> Iterator[int]:
    """Return how many files this process may have open, raised as far as it may raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(address: tuple[str, int], source: str, number: int, opened: list[socket.socket]) -> None:
    """Open connections that send half a head each."""
    for _ in range(number):
        opened.append(socket.create_connection(address, timeout=30, source_address=(source, 0)))
        with suppress(OSError):  # the server may have closed it already
            opened[-1].sendall(b"GET /v1/conversations HTTP/1.1\r\nHost: 127")


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
async def test_half_open_connections_of_one_address_leave_others_served(
    site: Site, most_files: int, record_property: Callable[[str, object], None]
) -> None:
    number = min(HALF_OPEN, most_files - 1000)
    record_property("half-open connections", number)
    server = psutil.Process(site.process.pid)
    memory = server.memory_info().rss
    opened: list[socket.socket] = []
    waits: dict[str, list[float]] = {"127.0.0.2": [], "127.0.0.3": []}
    flood = asyncio.create_task(asyncio.to_thread(half_open, site.address, "127.0.0.2", number, opened))
    try:
        while not flood.done() or len(waits["127.0.0.3"]) < 10:
            for source in waits:
                began = perf_counter()
                client = PlainClient(site.address, site.token, source)
                answer = await client.request("GET", f"/v1/conversations/{site.conversation}/messages?limit=50")
                client.close()
                assert answer.status == 200, (source, len(opened), answer)
                waits[source].append(perf_counter() - began)
                assert server.num_fds() < ServerSettings().max_connections + OTHER_FILES
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await asyncio.wait([flood])
        for each in opened:
            each.close()
    grown = (server.memory_info().rss - memory) / 2**20
    print(f"{number} half-open connections; the longest waits {max(waits['127.0.0.3']):.3f} s for another address, "
          f"{max(waits['127.0.0.2']):.3f} s for the same one; the server has grown by {grown:.0f} MB")  # fmt: skip
    await flood
    assert len(opened) == number
    assert max(waits["127.0.0.3"]) < MAX_SECONDS
    assert grown < 100


def unfair_latencies(at_rest: Times, under_attack: Times, percent: int, floor: float = FLOOR_SECONDS) -> list[str]:
    """Return what was not fair.

    Args:
        percent: of the requests of each kind that must stay within the bound.
        floor: times at rest are not taken for shorter than this.
    """
    wrong = under_attack.refused[:3]
    for what in at_rest.seconds:
        bound = TIMES * max(floor, at_rest.percentile(what, percent))
        if (took := under_attack.percentile(what, percent)) > bound:
            wrong.append(f"{what}: {took:.3f} s, more than {bound:.3f} s")
    return wrong


@pytest.fixture
def idle_machine() -> None:
    """Skip the test if other programs occupy the processors: a wait for a processor looks like a wait for a lock."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * processors:
        pytest.skip(f"the machine is busy: load {load:.1f} on {processors} processors")


@pytest.mark.usefixtures("idle_machine")
async def test_an_attack_costs_another_tenant_little(site: Site) -> None:
    """A short attack, on a machine that may be busy: so it looks at medians.

    It begins with a thousand concurrent connections and requests, during which none is rejected or waits for long.
    """
    at_rest, begin, under_attack = Times(), Times(), Times()
    await site.measure(2, at_rest)
    answers = await site.attacked(KINDS, 5, under_attack, begin)
    report = f"at rest {at_rest}; under attack {under_attack}; the attacker was answered {answers}"
    assert not unfair_latencies(at_rest, under_attack, 50, SHARED_FLOOR_SECONDS), report
    assert not begin.refused
    for times in (begin, under_attack):
        assert max(times.percentile(what, 100) for what in times.seconds) < MAX_SECONDS, report


async def test_memory_of_the_server_is_bounded(site: Site) -> None:
    """Two tenants hold as many of the largest bodies as they may, and one attacks in all other ways meanwhile."""
    server = psutil.Process(site.process.pid)
    attacker = PlainClient(site.address, site.tokens[0])
    path = f"/v1/conversations/{site.target}/messages"
    for _ in range(LARGE_MESSAGES):
        answer = await attacker.request("POST", path, {"role": "user", "content": "x" * 500_000})
        assert answer.status == 201, answer
    attacker.close()
    both = replace(site, tokens=[*site.tokens, site.token], client=PlainClient(site.address, site.token))
    most = before = server.memory_info().rss
    attacks = [
        asyncio.create_task(site.attacked((*KINDS, "unread"), MEMORY_SECONDS, Times())),
        asyncio.create_task(both.attacked(("held",), MEMORY_SECONDS, Times())),
    ]
    while not all(attack.done() for attack in attacks):
        most = max(most, server.memory_info().rss)
        await asyncio.wait(attacks, timeout=0.1)
    print(
        f"memory: {before / 2**20:.0f} MB at rest, {most / 2**20:.0f} MB at most; {[each.result() for each in attacks]}"
    )
    both.client.close()
    assert most < MAX_MEMORY


@pytest.mark.slow
@pytest.mark.skipif(not ATTACK_SECONDS, reason="a long form: set EVENTSTORE_TEST_ATTACK_SECONDS")
@pytest.mark.timeout(3600 + 4 * ATTACK_SECONDS)
@pytest.mark.usefixtures("idle_machine")
async def test_long_attacks_one_by_one_and_all_together_cost_another_tenant_little(site: Site) -> None:
    phases = [(kind,) for kind in KINDS] + [KINDS]
    measured = {phase: Times() for phase in phases}
    at_rest = Times()
    seconds = ATTACK_SECONDS / len(phases)
    rounds = max(1, round(seconds / 20))
    for _ in range(rounds):
        for phase in phases:
            await site.measure(seconds / rounds / 2, at_rest)
            answers = await site.attacked(phase, seconds / rounds, measured[phase])
            memory = psutil.Process(site.process.pid).memory_info().rss / 2**20
            print(f"{'+'.join(phase)}: {measured[phase]}; answers {answers}; memory {memory:.0f} MB")
    print(f"at rest: {at_rest}")
    wrong = {"+".join(phase): unfair_latencies(at_rest, times, 95) for phase, times in measured.items()}
    assert not any(wrong.values()), wrong
