"""Debian's Patroni and etcd, run as docs/guides/high-availability.md says, with the files of ``deploy/patroni``.

All machines are this one: the network 10.0.0.0/24 of the files becomes one of the loopback interface.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import psutil

from eventstore.database.embedded.installation import choose_account
from support import guide
from support.environment import TREE
from support.guide import NETWORK, commands
from support.servers import open_folder
from support.waiting import until

FILES = TREE / "deploy" / "patroni"
PROGRAMS = ("/usr/bin/patroni", "/usr/bin/etcd", "/usr/lib/postgresql/15/bin/postgres")
MACHINES = ("one", "two", "three")
_NETWORK = f"127.{os.getpid() // 254 % 254 + 1}.{os.getpid() % 254 + 1}."
_PARAMETERS = "      parameters:\n"
"""The line of Patroni's configuration below which the parameters of the servers stand."""
_SECONDS = 90.0


def is_installed() -> bool:
    """Return whether all programs are installed."""
    return all(map(os.path.exists, PROGRAMS))


class Machine:
    """A machine of the recipe: its processes, and the files of its folder.

    Attributes:
        name: its name in etcd and in Patroni.
        address: its IP address.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.name = MACHINES[number]
        self.address = f"{_NETWORK}{number + 1}"
        self._account = choose_account(folder)
        self._folder = folder / self.name
        self._folder.mkdir(mode=0o700)
        shutil.copy(TREE / "deploy" / "patroni" / "login.sql", self._folder)
        text = self._adapted((FILES / "config.yml").read_text())
        assert _PARAMETERS in text
        # A server that is killed leaves its shared memory then: in the data directory.
        text = text.replace(_PARAMETERS, f"{_PARAMETERS}        dynamic_shared_memory_type: mmap\n")
        (self._folder / "config.yml").write_text(text)
        for path in (self._folder, *self._folder.iterdir()):
            os.chown(path, self._account.uid, self._account.gid)
        self._running: list[subprocess.Popen[bytes]] = []

    def start_etcd(self) -> None:
        """Start etcd as its service does."""
        self._start("etcd", "/usr/bin/etcd", "etcd", ETCD_DATA_DIR=str(self._folder / "etcd"))

    def start_patroni(self) -> None:
        """Start Patroni as its service does."""
        self._start("patroni", "/usr/bin/patroni", "patroni_env.conf", str(self._folder / "config.yml"))

    def run_patronictl(self) -> list[str]:
        """Run the commands of the guide that control the cluster, and return what each printed."""
        printed = []
        for program, *arguments in commands(guide.PATRONI):
            command = [f"/usr/bin/{program}", *map(self._adapted, arguments)]
            environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **self._variables("patroni_env.conf")}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            printed.append(done.stdout)
        return printed

    def kill(self) -> None:
        """Kill Patroni and PostgreSQL, with all processes, by SIGKILL."""
        processes = [process for process in psutil.process_iter() if self._is_of_patroni(process)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def stop(self) -> None:
        """End everything."""
        self.kill()
        for process in self._running:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        """The end of the logs."""
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in self._folder.glob("*.log"))

    def _is_of_patroni(self, process: psutil.Process) -> bool:
        """Return whether a process is this machine's Patroni, or one of its server's, by its working directory."""
        with suppress(psutil.Error, OSError):
            return process.cwd().startswith(str(self._folder)) and process.name() != "etcd"
        return False

    def _start(self, name: str, program: str, file: str, *arguments: str, **more: str) -> None:
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **self._variables(file), **more}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._folder,
                user=self._account.uid if self._account.other else None,
                group=self._account.gid if self._account.other else None,
                extra_groups=[] if self._account.other else None,
                start_new_session=True,
            )
        self._running.append(process)

    def _variables(self, file: str) -> dict[str, str]:
        """Return the variables of a file for the first machine, with the name and address of this one."""
        lines = [line for line in (FILES / file).read_text().splitlines() if line and not line.startswith("#")]
        variables = dict(line.split("=", 1) for line in lines)
        shared = ("ETCD_INITIAL_CLUSTER", "PATRONI_ETCD3_HOSTS")
        for name, value in variables.items():
            if name not in shared:
                value = value.replace(f"{NETWORK}1:", f"{self.address}:")
            if name in ("ETCD_NAME", "PATRONI_NAME"):
                value = self.name
            variables[name] = self._adapted(value)
        return variables

    def _adapted(self, text: str) -> str:
        for documented in ("/var/lib/postgresql/15", "/var/lib/postgresql", "/var/run/postgresql", "/etc/patroni"):
            text = text.replace(documented, str(self._folder))
        return text.replace(NETWORK, _NETWORK)


class Cluster:
    """The machines of the recipe: three with etcd, the first two of them with Patroni and PostgreSQL.

    Attributes:
        url: names both servers, and leads to the one that accepts writes.
    """

    def __init__(self, folder: Path) -> None:
        self.machines = [Machine(folder, number) for number in range(len(MACHINES))]
        self.servers = self.machines[:2]
        hosts = ",".join(f"{each.address}:5432" for each in self.servers)
        self.url = f"postgresql://agents:change-me-5@{hosts}/flowagents?target_session_attrs=read-write"

    def members(self) -> dict[str, tuple[str, str]]:
        """Return the role and state of each member of the cluster, as Patroni's interface reports them."""
        for machine in self.servers:
            with suppress(OSError, ValueError), urlopen(f"http://{machine.address}:8008/cluster", timeout=2) as answer:
                return {each["name"]: (each["role"], each["state"]) for each in json.load(answer)["members"]}
        return {}

    def leader(self) -> Machine | None:
        """Return the machine of the primary."""
        roles = {name: role for name, (role, state) in self.members().items() if state == "running"}
        return next((each for each in self.servers if roles.get(each.name) == "leader"), None)

    def until_synchronous(self) -> Machine:
        """Wait until there are a primary and a synchronous standby; return the primary's machine."""

        def are_ready() -> bool:
            return sorted(self.members().values()) == [("leader", "running"), ("sync_standby", "running")]

        try:
            until(are_ready, "there are a primary and a synchronous standby", _SECONDS)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *(each.log for each in self.servers)])) from None
        leader = self.leader()
        assert leader is not None
        return leader


@contextmanager
def patroni_cluster() -> Iterator[Cluster]:
    """The recipe, running, with an empty database."""
    with open_folder() as folder:
        cluster = Cluster(folder)
        try:
            for machine in cluster.machines:
                machine.start_etcd()
            for machine in cluster.servers:
                machine.start_patroni()
            cluster.until_synchronous()
            yield cluster
        finally:
            for machine in cluster.machines:
                machine.stop()
