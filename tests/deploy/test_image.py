"""The Dockerfile: two stages, nothing in the image but the program, and its command as an account without rights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.deployment import confined, dockerfile, in_namespace, skip_if_nothing_can_be_confined
from support.environment import TREE

from eventstore import __version__

BUILD, FINAL = dockerfile()
COMPLETE = os.environ.get("EVENTSTORE_TEST_IMAGE") == "1"
"""If set, the dependencies are installed too; otherwise those of the tests are used."""


def test_each_stage_is_of_a_pinned_tag_of_the_same_image() -> None:
    images = [stage[0][1].removesuffix(" AS build") for stage in (BUILD, FINAL)]
    assert images[0] == images[1]
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", images[0])


def test_the_image_gets_the_installed_program_and_nothing_else() -> None:
    copied = [rest for instruction, rest in FINAL if instruction in ("COPY", "ADD")]
    assert copied == ["--from=build /opt/eventstore /opt/eventstore"]
    commands = " ".join(rest for instruction, rest in FINAL if instruction == "RUN")
    assert "pip uninstall --yes" in commands
    assert not re.search(r"apt|curl|wget|gcc|pip install", commands)


def test_the_image_runs_as_a_number_that_is_not_root_and_checks_itself_without_curl() -> None:
    instructions = dict(FINAL)
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", instructions["USER"])
    assert json.loads(instructions["ENTRYPOINT"]) == ["eventstore"]
    assert json.loads(instructions["CMD"])[0] == "up"
    program, *_ = json.loads(instructions["HEALTHCHECK"].partition(" CMD ")[2])
    assert program == "python"
    assert "WORKDIR" not in instructions, "an .env file could be placed there"


def context(folder: Path) -> Path:
    """The files of the build, as .dockerignore leaves them, in a folder ``src``."""
    everything, *rules = [
        line for line in (TREE / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert everything == "*"
    names = [rule[1:] for rule in rules if rule.startswith("!")]
    ignored = shutil.ignore_patterns(*(rule.removeprefix("**/") for rule in rules if rule.startswith("**/")))
    assert all("/" not in name for name in names)
    for name in names:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, folder / "src" / name, ignore=ignored)
        else:
            (folder / "src").mkdir(exist_ok=True)
            shutil.copy(TREE / name, folder / "src" / name)
    return folder / "src"


def test_no_secret_enters_the_build() -> None:
    rules = (TREE / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    assert {"**/.env", "**/secrets", "**/*.pem", "**/*.key", "**/backups"} <= set(rules)


@pytest.mark.slow
def test_what_the_dockerfile_builds_runs_without_rights_on_a_read_only_file_system(tmp_path: Path) -> None:
    skip_if_nothing_can_be_confined()
    source, target = context(tmp_path), tmp_path / "opt"
    target.mkdir()
    [build] = [rest for instruction, rest in BUILD if instruction == "RUN"]
    if not COMPLETE:
        build = build.replace("install --no-cache-dir", "install --no-deps --no-cache-dir")
    done = subprocess.run(
        in_namespace(["sh", "-ec", f"cd /mnt/src\n{build}"], {str(target): "/opt/eventstore", str(source): "/mnt/src"}),
        env={**os.environ, "PATH": f"/mnt/python/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    [packages] = target.glob("lib/python3.*/site-packages")
    assert not (packages / "pip").exists()
    assert not list(target.glob("bin/pip*"))
    assert not list(packages.glob("tests*")) + list(packages.glob("tools*"))

    if not COMPLETE:
        (packages / "dependencies.pth").write_text("/mnt/packages\n")  # after the image's own packages
    environment = {"PATH": "/opt/eventstore/bin:/usr/bin:/bin", "PYTHONPATH": ""}
    command = confined(["eventstore", "--version"], environment, {str(target): "/opt/eventstore"})
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.stdout.split()[-1], shown.stderr) == (__version__, "")

    probe = "import os, eventstore; print(os.getuid(), eventstore.__file__); open('/tmp/x', 'w'); open('/opt/x', 'w')"
    command = confined(["python", "-c", probe], environment, {str(target): "/opt/eventstore"})
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.stdout.startswith("10001 /opt/eventstore/lib/")
    assert "Read-only file system: '/opt/x'" in refused.stderr
