"""The command line: `funcbp check`, `funcbp derive` and `funcbp rules`; `funcbp --help` tells more."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what stands behind `funcbp`; None: of the process.

    Returns:
        The exit status: 0 fine and right, 1 wrong, 2 error, 3 undecidable.

    Raises:
        SystemExit: after `--help`, and with 2 for options that do not fit.
    """
    try:
        from ._cli.app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("rich", "tyro"):
            raise
        print(f'funcbp on the command line needs {missing}: pip install "funcbp[cli]"', file=sys.stderr)
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)
