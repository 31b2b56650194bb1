"""The commands put together, and what happens to errors."""

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from .check import Check, check
from .errors import UsageError
from .rules import Rules, rules

__all__ = ["run"]

_PACKAGE = Path(__file__).resolve().parents[1]
_ERROR, _INTERRUPTED = 2, 130

_Command = Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Rules, tyro.conf.subcommand("rules")]


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    if list(arguments) in (["--version"], ["-V"]):
        print(f"funcbp {version('funcbp')}")
        return 0
    description = "funcbp: hand-derived backward passes for JAX. Check your own, look up ours."
    config = tyro.cli(_Command, prog="funcbp", description=description, args=list(arguments) or ["--help"])
    try:
        return check(config) if isinstance(config, Check) else rules(config)
    except UsageError as error:
        _say(str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        # What funcbp refuses is said in a sentence; what breaks inside of the user's code needs its lines.
        ours = isinstance(error, TypeError | ValueError) and _raised_here(error)
        _say(str(error) if ours else "".join(traceback.format_exception(error)).rstrip())
    return _ERROR


def _raised_here(error: Exception) -> bool:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(_PACKAGE)


def _say(message: str) -> None:
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False)
