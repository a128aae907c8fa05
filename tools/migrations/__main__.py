"""``python -m tools.migrations [check | next NAME]``, in the folder that holds ``db``."""

import sys
from pathlib import Path

from tools.migrations.composition import CompositionError, Schema


def main(arguments: list[str]) -> str | None:
    """Run the command; return what is wrong."""
    try:
        schema = Schema(Path("db"))
        match arguments:
            case []:
                schema.write()
            case ["check"]:
                if differences := schema.differences():
                    return f"not what the files make: {', '.join(differences)}; run python -m tools.migrations"
            case ["next", name]:
                print(schema.next(name))
            case _:
                return __doc__
    except CompositionError as error:
        return str(error)
    return None


sys.exit(main(sys.argv[1:]))
