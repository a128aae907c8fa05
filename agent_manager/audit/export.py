"""Exporting the sealed log as the files of C2SP's ``tlog-tiles``, which any web server can serve to monitors.

Files are written once, so an export into the same folder adds what is new. The checkpoint comes last: its readers find
all that it needs.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent_manager.audit.merkle import TILE, leaf_hashes
from agent_manager.audit.notes import Checkpoint
from agent_manager.audit.sealed_tree import PACKAGE, fetching, last_checkpoint, load_tree
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound, printable

_TILES = 64


async def export_tiles(store: EventStore, folder: Path) -> Checkpoint:
    """Write the tiles of the newest checkpoint, and then the checkpoint; return it.

    Raises:
        NotFound: nothing is sealed.
        InputError: the folder cannot be written.
    """
    fetch = fetching(store)
    checkpoint = await last_checkpoint(fetch)
    if checkpoint is None:
        raise NotFound("nothing is sealed yet: set EVENTSTORE_AUDIT_KEY for eventstore up or project")
    try:
        level, full = 0, checkpoint.size // TILE
        while full:
            for first in range(0, full, _TILES):
                indexes = [n for n in range(first, min(first + _TILES, full)) if not _path(folder, level, n).exists()]
                given = {"levels": [level] * len(indexes), "indexes": indexes}
                for _, index, raw in await fetch(query(PACKAGE, "tiles"), given) if indexes else ():
                    _write_tile(folder, level, index, bytes(raw))
            level, full = level + 1, full // TILE
        tree = await load_tree(fetch, checkpoint.size, 0)
        if tree.bundle:
            _write_tile(folder, 0, checkpoint.size // TILE, tree.bundle, checkpoint.size % TILE)
        for number, hashes in enumerate(tree.hashes, 1):
            if hashes:
                index = checkpoint.size >> 8 * (number + 1)
                _write(_path(folder, number, index, len(hashes)), b"".join(hashes))
        _write(folder / "checkpoint", checkpoint.text.encode())
    except OSError as error:
        raise InputError(f"{printable(str(folder))}: {error.strerror}: name a folder that can be written") from None
    return checkpoint


def _write_tile(folder: Path, level: int, index: int, content: bytes, width: int = 0) -> None:
    if level == 0:
        _write(_path(folder, "entries", index, width), content)
        content = b"".join(leaf_hashes(content))
    _write(_path(folder, level, index, width), content)


def _path(folder: Path, level: int | str, index: int, width: int = 0) -> Path:
    """Return the path of a tile; a width stands for a tile that is incomplete."""
    parts = [f"{index % 1000:03}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03}")
    path = folder.joinpath("tile", str(level), *parts)
    return path.with_name(f"{path.name}.p") / str(width) if width else path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
