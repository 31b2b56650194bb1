"""A line that says what a long check is doing, on a terminal only."""

import sys
import time
from collections.abc import Callable

__all__ = ["line"]

_PATIENCE = 3.0  # seconds without a word


def line(subject: str) -> tuple[Callable[[str], None], Callable[[], None]]:
    """What to call at every stage of a check, and at its end.

    The line appears on stderr after a few seconds, is written over from stage to stage, and removed at the
    end. Where stderr is no terminal nothing is written.
    """
    started = time.monotonic()
    shown = 0

    def tell(stage: str) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - started > _PATIENCE:
            text = f"checking {subject}: {stage} ({time.monotonic() - started:.0f} s)"
            print(f"\r{text:<{shown}}", end="", file=sys.stderr, flush=True)
            shown = len(text)

    def end() -> None:
        if shown:
            print(f"\r{'':<{shown}}\r", end="", file=sys.stderr, flush=True)

    return tell, end
