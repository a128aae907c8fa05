"""``python -m tools.migrations [check | next NAME | locks]``, in the folder that holds ``db``."""

import sys
from pathlib import Path

from tools.migrations.composition import CompositionError, Schema
from tools.migrations.locks import problems_after


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
            case ["locks"]:
                return "\n".join(problems_after(schema.baseline, Path("db/migrations"))) or None
            case _:
                return __doc__
    except CompositionError as error:
        return str(error)
    return None


sys.exit(main(sys.argv[1:]))
