"""`funcbp derive`: the derivation of a gradient, of a function in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

import funcbp

from .._derive import Derivation
from .arguments import Given, parse
from .call import Call, bind
from .check import STATUS
from .errors import UsageError
from .printing import progress, show, show_report, write_text
from .targets import load

__all__ = ["Derive", "derive"]


@dataclass(frozen=True)
class Derive:
    """The gradient of a function in a file, derived line by line as in a textbook.

    funcbp derive mine.py::loss --arg w=float32[4] --arg x=float32[32,4] --wrt w

    Arguments are arrays, as for `funcbp check`: a shape, float32[32,4], a file, @x.npy, or drawn, as
    x="float32[32,4] in simplex", where an assumption has to be checked. Give different sizes to what
    differs: equal sizes are one dimension. A number with a point is a scalar of the derivation; other
    values, such as 2, true or mean, are put in as they are. A tree is given leaf by leaf, as for `funcbp
    check`: --arg params.w=float32[4,3].

    Exit status: 0 derived (and right, with --check), 1 wrong, 2 error, 3 undecidable.

    Attributes:
        target: FILE.py::NAME, or package.module::NAME.
        arg: An example of one argument; once for each.
        wrt: Names of the arguments to differentiate by, or paths of leaves; all if none is given.
        style: Differentials, or indices with Kronecker's δ.
        assume: A fact that simplifications may use, once for each: "rows of Y sum to one", "S symmetric",
            or of elements "x > 0" and "x != 0".
        latex: Print LaTeX.
        markdown: Print Markdown.
        python: Print the generated Python function.
        html: Write a page that needs nothing else to this file, or with - to stdout and nothing else.
        check: Compare the generated function with jax.grad, and print the report.
        seed: Of everything that is drawn.
    """

    target: Annotated[str, tyro.conf.arg(metavar="FILE.py::NAME"), tyro.conf.Positional]
    arg: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")] = ()
    wrt: tuple[str, ...] = ()
    style: Literal["differential", "index"] = "differential"
    assume: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FACT")] = ()
    latex: bool = False
    markdown: bool = False
    python: bool = False
    html: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    check: bool = False
    seed: int = 0


def derive(config: Derive) -> int:
    """Derive, print or write what was asked for, and return the exit status.

    Raises:
        UsageError: for what does not fit in the command.
        UnsupportedError: for an operation that has no rule; it names the operation and the line.
    """
    page = _page_writer() if config.html is not None else None
    form = _form(config)
    function = load(config.target)
    if not callable(function):
        raise UsageError(f"{config.target}: only one function is derived.")
    derivation = _derivation(config, function)
    report = None
    if config.check:
        with progress(f"checking the gradient of {config.target}"):
            report = derivation.check(config.seed)
    if config.html != "-":
        write_text(form(derivation).rstrip() + "\n", "-")
    if page is not None and config.html is not None:
        title = f"The gradient of {config.target.rpartition('::')[2]}"
        write_text(page(derivation, title, "" if report is None else str(report)), config.html)
    if report is None:
        return 0
    aside = config.html == "-" or form is not str
    if not aside:
        show("")
    show_report(report, aside=aside)
    return STATUS[report.verdict]


def _page_writer() -> Callable[[Derivation, str, str], str]:
    try:
        from .._derive._page import page
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "latex2mathml":
            raise
        raise UsageError('--html needs latex2mathml: pip install "funcbp[docs]"') from error
    return page


def _form(config: Derive) -> Callable[[Derivation], str]:
    """How the derivation is printed."""
    forms: dict[str, Callable[[Derivation], str]] = {
        "latex": Derivation.latex,
        "markdown": Derivation.markdown,
        "python": Derivation.source,
    }
    wanted = [name for name in forms if getattr(config, name)]
    if len(wanted) > 1:
        raise UsageError(f"--{wanted[0]} and --{wanted[1]} are both for stdout: take one of them.")
    return forms[wanted[0]] if wanted else str


def _derivation(config: Derive, function: Callable[..., Any]) -> Derivation:
    given = [parse(text) for text in config.arg]
    call = bind(function, config.target, given, config.seed)
    arrays = {name: _example(value, name, given) for name, value in zip(call.names, call.args, strict=True)}
    arrays = {name: value for name, value in arrays.items() if value is not None}
    return funcbp.derive(
        _of_arrays(function, call, list(arrays)),
        *arrays.values(),
        names=list(arrays),
        wrt=config.wrt or None,
        assume=config.assume,
        style=config.style,
    )


def _example(value: Any, name: str, given: Sequence[Given]) -> Any:
    """A shape, where it is all that was said of an array, the array where more was; None for a constant."""
    said = [g for g in given if g.path == (name,)]
    if said and said[0].spec is not None and said[0].domain is None:
        return said[0].spec
    if isinstance(value, np.ndarray | jax.Array | float | dict | list):
        return value
    return None


def _of_arrays(function: Callable[..., Any], call: Call, names: Sequence[str]) -> Callable[..., Any]:
    """The function with constants put in."""

    def of_arrays(*arrays: Any) -> Any:
        values = dict(zip(names, arrays, strict=True))
        return function(
            *(values.get(n, v) for n, v in zip(call.names, call.args, strict=True)), **call.static
        )

    return of_arrays
