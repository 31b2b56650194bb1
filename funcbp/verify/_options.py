"""Options of a check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import jax.numpy as jnp
from jax.typing import DTypeLike

from ..domains import Domain

__all__ = ["CheckOptions", "Options", "options_of"]


class CheckOptions(TypedDict, total=False):
    """Keyword options of every check; see `funcbp.check_gradient` for what they mean."""

    domain: Mapping[str | int, Domain] | None
    points: Mapping[str, tuple[Any, ...]] | None
    dtypes: tuple[DTypeLike, ...] | None
    order: int
    samples: int
    seed: int
    rtol: float | None
    budget: float
    progress: Callable[[str], None] | None


@dataclass(frozen=True)
class Options:
    """The same, checked and with their defaults."""

    domain: Mapping[str | int, Domain] | None = None
    points: Mapping[str, tuple[Any, ...]] | None = None
    dtypes: tuple[DTypeLike, ...] | None = None
    order: int = 1
    samples: int = 16
    seed: int = 0
    rtol: float | None = None
    budget: float = 60.0
    progress: Callable[[str], None] | None = None

    def tell(self, stage: str) -> None:
        """Say what is done now, to whom it may concern."""
        if self.progress is not None:
            self.progress(stage)


def options_of(**given: Unpack[CheckOptions]) -> Options:
    """Options with defaults filled in.

    Raises:
        TypeError: for an option that there is not, or a dtype that is not floating.
        ValueError: for a value out of range.
    """
    unknown = set(given) - set(CheckOptions.__annotations__)
    if unknown:
        known = ", ".join(CheckOptions.__annotations__)
        raise TypeError(f"There is no option {', '.join(sorted(unknown))}; there are {known}.")
    options = Options(**given)
    if options.order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, not {options.order!r}.")
    if options.samples < 1:
        raise ValueError(f"samples must be at least 1, not {options.samples!r}.")
    if options.budget <= 0:
        raise ValueError(f"budget must be a positive number of seconds, not {options.budget!r}.")
    if options.rtol is not None and not options.rtol >= 0:
        raise ValueError(f"rtol must not be negative, but is {options.rtol!r}.")
    for dtype in options.dtypes or ():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"dtypes must be floating, but {jnp.dtype(dtype)} is not.")
    return options
