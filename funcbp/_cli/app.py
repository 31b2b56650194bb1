"""The commands put together, and what happens to errors."""

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from .._derive import UnsupportedError
from .check import Check, check
from .derive import Derive, derive
from .errors import UsageError
from .rules import Rules, rules

__all__ = ["run"]

_PACKAGE = Path(__file__).resolve().parents[1]
_JAX = Path(jax.__file__).resolve().parent
_ERROR, _INTERRUPTED = 2, 130

_REFUSALS = (TypeError, ValueError, UnsupportedError)

_Command = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Derive, tyro.conf.subcommand("derive")]
    | Annotated[Rules, tyro.conf.subcommand("rules")]
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    if list(arguments) in (["--version"], ["-V"]):
        print(f"funcbp {version('funcbp')}")
        return 0
    description = "funcbp: hand-derived backward passes for JAX. Check or derive your own, look up ours."
    config = tyro.cli(_Command, prog="funcbp", description=description, args=list(arguments) or ["--help"])
    try:
        return _command(config)
    except UsageError as error:
        _say(str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        _say(_told(error))
    return _ERROR


def _command(config: Check | Derive | Rules) -> int:
    if isinstance(config, Check):
        return check(config)
    return derive(config) if isinstance(config, Derive) else rules(config)


def _told(error: Exception) -> str:
    """What funcbp refuses is said in a sentence; what breaks in the user's code is shown with its lines."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if not isinstance(error, _REFUSALS) or not _is_below(last.filename, _PACKAGE):
        # Not what was being handled: functions are traced twice, and then break twice.
        return "".join(traceback.format_exception(error, chain=error.__cause__ is not None)).rstrip()
    if error.__cause__ is None:
        return str(error)
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    theirs = [f for f in frames if not any(_is_below(f.filename, inner) for inner in (_PACKAGE, _JAX))]
    return f"{error}\n{''.join(traceback.format_list(theirs))}".rstrip()


def _is_below(filename: str, folder: Path) -> bool:
    return Path(filename).resolve().is_relative_to(folder)


def _say(message: str) -> None:
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False)
