"""Builds the site into ``site/``, or into the folder given; fails if a page loads anything from another host."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config

from tools.docs.external import external_resources

CONFIG = Path(__file__).with_name("mkdocs.yml")
TREE = Path(__file__).parents[2]


def main(folder: Path) -> int:
    """Build the site and return the exit code."""
    logging.basicConfig(format="%(message)s")  # else mkdocs does not say which link is broken
    config = load_config(str(CONFIG), site_dir=str(folder.absolute()), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    found = external_resources(folder)
    for page, address in found:
        print(f"{page}: loads {address}: include it in docs/, or link to it", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TREE / "site"))
