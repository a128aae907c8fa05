"""The commands of docs/guides/high-availability.md, which the tests of replication run."""

from __future__ import annotations

import shlex

from support.pages import Block, blocks, shell_lines

DATA = "/var/lib/postgresql/15/eventstore"
NETWORK = "10.0.0."

COPY, REQUIRE, PROMOTE, CHECKPOINT, REWIND, MIGRATE, PATRONI = (
    block for block in blocks("docs/guides/high-availability.md") if block.language == "sh"
)


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block, each as a program and its arguments."""
    return [shlex.split(line) for line in shell_lines(block)]
