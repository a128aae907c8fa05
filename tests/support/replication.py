"""Two servers of one database, each of which can be the primary or the standby of the other one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from eventstore.database.embedded.installation import choose_account, find_binaries
from support import guide
from support.guide import DATA, commands
from support.network import Network
from support.pages import Block
from support.servers import BIN_DIR, memory_folder, open_folder
from support.waiting import until

LOGIN, DATABASE = "agents", "flowagents"

_RULES = "local all all trust\nlocal replication all trust\nhost all all samenet trust\n"
"""The sockets lie in private folders, and the only network that a server may be in ends in this process."""
_SETTINGS = """
listen_addresses = ''
port = 5432
wal_log_hints = on
max_wal_size = 128MB
wal_keep_size = 512MB
max_prepared_transactions = 10
dynamic_shared_memory_type = mmap
"""
"""Servers that are killed leave their shared memory, which is in the data directory then."""


class Node:
    """A server, with its data and its socket in a private folder.

    Args:
        network: the network that it can be reached over, beside its socket file.
    """

    def __init__(self, folder: Path, name: str, network: Network | None = None) -> None:
        self._network = network
        self.folder = folder / name
        self._data = self.folder / "data"
        self._account = choose_account(folder)
        self._programs = find_binaries(Path(BIN_DIR) if BIN_DIR else None, self._account)
        self.folder.mkdir(mode=0o700)
        os.chown(self.folder, self._account.uid, self._account.gid)

    @property
    def socket_url(self) -> str:
        """The URL of its database over the socket file."""
        return f"postgresql://{LOGIN}@/{DATABASE}?host={quote(str(self.folder), safe='')}&port=5432"

    @property
    def url(self) -> str:
        """The URL of its database over the network that it is in, or over the socket file if there is none."""
        return f"postgresql://{LOGIN}@{self._network.address}/{DATABASE}" if self._network else self.socket_url

    def conninfo(self, database: str = DATABASE) -> str:
        """The connection string for the superuser."""
        return make_conninfo(host=str(self.folder), port=5432, user="postgres", dbname=database)

    def connect(self, database: str = DATABASE) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the superuser in autocommit mode."""
        return psycopg.connect(self.conninfo(database), autocommit=True)

    def fetch(self, query: str) -> tuple[Any, ...] | None:
        """Run a query as the superuser, and return its first row."""
        with self.connect() as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchone() if cursor.description else None

    def create(self) -> None:
        """Create an empty server with the database and its login, and start it."""
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--locale=C", "--encoding=UTF8", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        (self._data / "pg_hba.conf").write_text(_RULES)
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE ROLE {LOGIN} LOGIN CREATEROLE")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {LOGIN}")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = ["-D", str(self._data), "-l", str(self.folder / "log"), "-w", "start", "-o"]
        if self._network is None:
            self._run("pg_ctl", *options, self._options)
            return
        account = [f"--reuid={self._account.uid}", f"--regid={self._account.gid}", "--clear-groups"]
        command = [*self._network.inside, "setpriv", *account, self._programs["pg_ctl"], *options]
        subprocess.run(
            [*command, f"{self._options} -c listen_addresses={self._network.address}"],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PATH": f"{os.defpath}:/usr/sbin:/sbin"},
        )

    def follow(self, block: Block, other: Node) -> None:
        """Run the commands of the guide on this server.

        Args:
            other: the server that they name by its address.
        """
        for program, *arguments in commands(block):
            given = [each.replace(DATA, str(self._data)) for each in arguments]
            given = [re.sub(rf"{re.escape(guide.NETWORK)}\d", str(other.folder), each) for each in given]
            if program == "psql":
                given += ["-h", str(self.folder), "-U", "postgres", "-d", DATABASE, "-v", "ON_ERROR_STOP=1"]
            elif given[-1] == "start":
                given += ["-l", str(self.folder / "log"), "-o", self._options]
            self._run(program, *given)

    def clear(self) -> None:
        """Remove the data of a server that does not run."""
        shutil.rmtree(self._data)

    def kill(self, *, at_once: bool) -> None:
        """Kill the postmaster by SIGKILL; either all its processes with it, or they notice that it is gone."""
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes if at_once else [postmaster]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def stop(self) -> None:
        """Stop the server if it runs."""
        with suppress(RuntimeError):
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def is_synchronous(self) -> bool:
        """Return whether a synchronous standby is connected, and a commit waits for it at this instant.

        The setting alone does not tell: sessions wait only once the checkpointer has read it.
        """
        waits = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"
        row = self.fetch(f"SELECT {waits} AND EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
        return row == (True,)

    @property
    def _options(self) -> str:
        return f"-c unix_socket_directories={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        done = self._account.run([self._programs[program], *arguments])
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program}: {done.stdout}{log.read_text()[-2000:] if log.exists() else ''}")


class Pair:
    """A primary and its standby.

    Attributes:
        url: names both, and leads to the one that accepts writes.
        copied: how often a killed server had to be copied anew, because pg_rewind refused.
    """

    def __init__(self, folder: Path) -> None:
        self.copied = 0
        self.primary, self.standby = Node(folder, "one"), Node(folder, "two")
        hosts = ",".join(quote(str(node.folder), safe="") for node in (self.primary, self.standby))
        self.url = f"postgresql://{LOGIN}@/{DATABASE}?host={hosts}&port=5432&target_session_attrs=read-write"

    def require_standby(self) -> None:
        """Acknowledge commits only once the standby has confirmed them."""
        self.primary.follow(guide.REQUIRE, self.standby)

    def fail_over(self, *, at_once: bool) -> None:
        """Kill the primary and promote the standby, which requires no standby of its own yet."""
        self.primary.kill(at_once=at_once)
        self.primary, self.standby = self.standby, self.primary
        self.primary.follow(guide.PROMOTE, self.standby)

    def rejoin(self) -> None:
        """Bring the killed server back as the standby, and require that it confirms commits again.

        pg_rewind refuses if the server has recycled the WAL from before the promotion: then it is copied.
        """
        self.primary.follow(guide.CHECKPOINT, self.standby)
        try:
            self.standby.follow(guide.REWIND, self.primary)
        except RuntimeError:
            self.copied += 1
            self.standby.clear()
            self.standby.follow(guide.COPY, self.primary)
        self.require_standby()
        self.until_connected()

    def until_connected(self) -> None:
        """Wait until the standby follows the primary."""
        follows = "SELECT 1 FROM pg_stat_replication"
        until(lambda: self.primary.fetch(follows) is not None, "the standby is connected", 120)


@contextmanager
def single_server(network: Network | None = None) -> Iterator[Node]:
    """A server with an empty database, inside a network if there is one."""
    with open_folder(memory_folder()) as folder:
        node = Node(folder, "only", network)
        try:
            node.create()
            yield node
        finally:
            node.stop()


@contextmanager
def replicated_pair() -> Iterator[Pair]:
    """A primary with an empty database, and a standby that does not have to confirm commits yet."""
    with open_folder(memory_folder()) as folder:
        pair = Pair(folder)
        try:
            pair.primary.create()
            pair.standby.follow(guide.COPY, pair.primary)
            pair.until_connected()
            yield pair
        finally:
            pair.primary.stop()
            pair.standby.stop()
