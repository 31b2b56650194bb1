"""`funcbp check`: a verdict on a function in a file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import jax
import tyro

import funcbp

from .._rule import Rule
from ..verify import Report, check_rule
from .arguments import needs_x64, parse
from .call import Call, Kind, bind, guess_kind, positions
from .errors import UsageError
from .printing import progress, show, show_report, write_json
from .targets import load

__all__ = ["STATUS", "Check", "check"]

STATUS = {"right": 0, "wrong": 1, "undecidable": 3}


@dataclass(frozen=True)
class Check:
    """Is a gradient, VJP or Jacobian in a file right? Where is it wrong, and why?

    funcbp check mine.py::my_grad --of mine.py::loss --arg w=float32[4] --arg x=float32[32,4]

    Arguments are named as in the function given by --of. The value of an --arg is one of

    float32[32,4]               an array to be drawn, dtype[shape]
    "int32[32] in 0..9"         with a domain: a range (with both ends for integers), normal(0.1),
                                positive, simplex, away(0)
    @x.npy, @data.npz:x         an array in a file
    key, key(3)                 a random key
    0.1, true, none, mean       a number, a word

    and dots lead into trees: --arg params.w=float32[4,3] --arg layers.0.b=float32[3].

    Exit status: 0 right, 1 wrong, 2 error, 3 undecidable.

    Attributes:
        target: FILE.py::NAME, or package.module::NAME; FWD,BWD behind the :: is a pair. A rule needs no --of.
        of: The function that it belongs to, written the same way.
        arg: An example of one argument; once for each.
        kind: What the target gives. Guessed is a vjp for a rule, custom_vjp or pair, else a gradient.
        argnums: With respect to which arguments, by position or name. Of a gradient or Jacobian the first, of
            a vjp all that have a derivative.
        layout: How a Jacobian is written.
        order: 2 also checks the derivative of the gradient.
        samples: Number of random inputs.
        seed: Of everything that is drawn.
        budget: Seconds after which nothing new is begun.
        dtypes: To compute in, instead of the example's and float64.
        rtol: A relative error that is fine in any case.
        has_aux: The function returns (value, aux).
        json: Write the report to this file as JSON, or with - to stdout and nothing else.
    """

    target: Annotated[str, tyro.conf.arg(metavar="FILE.py::NAME"), tyro.conf.Positional]
    of: Annotated[str | None, tyro.conf.arg(metavar="FILE.py::NAME")] = None
    arg: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")] = ()
    kind: Literal["guess", "gradient", "vjp", "jacobian"] = "guess"
    argnums: tuple[str, ...] = ()
    layout: Literal["jax", "numerator", "denominator", "vec-columns", "vec-rows"] = "jax"
    order: Literal[1, 2] = 1
    samples: int | None = None
    seed: int = 0
    budget: float | None = None
    dtypes: tuple[str, ...] = ()
    rtol: float | None = None
    has_aux: bool = False
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None


def check(config: Check) -> int:
    """Run the check, print or write its report, and return the exit status.

    Raises:
        UsageError: for what does not fit in the command.
    """
    given = [parse(text) for text in config.arg]
    if any(map(needs_x64, given)):
        # Whoever asks for float64 wants it; and before their file is imported, which may make arrays.
        jax.config.update("jax_enable_x64", True)
    candidate = load(config.target)
    if config.of is None:
        return _conclude(config, "rule", *_check_of_rule(config, candidate))
    of = load(config.of, "--of")
    if not callable(of):
        raise UsageError(f"--of {config.of}: the reference must be one function.")
    call = bind(of, config.of, given, config.seed)
    kind = guess_kind(candidate) if config.kind == "guess" else config.kind
    if kind != "vjp" and not callable(candidate):
        raise UsageError(f"{config.target}: a {kind} is one function; a pair (fwd, bwd) is checked as vjp.")
    options = _options(config, kind, call)
    function = {
        "gradient": funcbp.check_gradient,
        "vjp": funcbp.check_vjp,
        "jacobian": funcbp.check_jacobian,
    }[kind]
    report, seconds = _timed(config, function, candidate, of=of, args=call.args, **options)
    return _conclude(config, kind, report, seconds, _line(config, kind, call, options))


def _options(config: Check, kind: Kind, call: Call) -> dict[str, Any]:
    given = {
        "argnums": positions(config.argnums, call.names),
        "domain": {call.names[position]: domain for position, domain in call.domain.items()} or None,
        "static": dict(call.static) or None,
        "has_aux": config.has_aux or None,
        "layout": config.layout if kind == "jacobian" and config.layout != "jax" else None,
        "order": config.order if config.order != 1 else None,
        "samples": config.samples,
        "seed": config.seed or None,
        "budget": config.budget,
        "dtypes": config.dtypes or None,
        "rtol": config.rtol,
    }
    return {name: value for name, value in given.items() if value is not None}


def _check_of_rule(config: Check, candidate: Any) -> tuple[Report, float, str]:
    if not isinstance(candidate, Rule):
        raise UsageError("--of is missing: the function that it belongs to, as --of path/to/file.py::loss.")
    if config.arg:
        raise UsageError("--arg belongs to --of; a rule alone is checked at what its domain says.")
    options: dict[str, Any] = {"seed": config.seed}
    if config.samples is not None:
        options["examples"] = config.samples
    if config.dtypes:
        options["dtypes"] = config.dtypes

    def run(rule: Rule, progress: Callable[[str], None], **options: Any) -> Report:
        del progress
        return check_rule(rule, **options)

    report, seconds = _timed(config, run, candidate, **options)
    return report, seconds, f"funcbp_check.rule({candidate.name})"


def _timed(config: Check, function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Report, float]:
    what = f"checking {config.target}" + (f" against {config.of}" if config.of else "")
    started = time.perf_counter()
    with progress(what) as tell:
        report = function(*args, progress=tell, **options)
    return cast(Report, report), time.perf_counter() - started


def _line(config: Check, kind: str, call: Call, options: dict[str, Any]) -> str:
    """The same check as one line of a test."""
    names = config.target.rpartition("::")[2].split(",")
    candidate = names[0] if len(names) == 1 else f"({', '.join(names)})"
    of = cast(str, config.of).rpartition("::")[2]
    # The options of how long and how deep belong to the suite's configuration.
    told = [f"{n}={_written(v)}" for n, v in options.items() if n not in ("samples", "seed", "budget")]
    comma = "," if len(call.names) == 1 else ""
    parts = [candidate, f"of={of}", f"args=({', '.join(call.names)}{comma})", *told]
    return f"funcbp_check.{kind}({', '.join(parts)})"


def _written(value: Any) -> str:
    if not isinstance(value, dict):
        return repr(value)
    entries = (f"{k!r}: {'funcbp.domains.' * hasattr(v, 'sample')}{v!r}" for k, v in value.items())
    return f"{{{', '.join(entries)}}}"


def _conclude(config: Check, kind: str, report: Report, seconds: float, line: str) -> int:
    if config.json is not None:
        target = {"target": config.target, "of": config.of, "kind": kind, "args": list(config.arg)}
        write_json({**target, "seconds": round(seconds, 3), "test": line, "report": report}, config.json)
    if config.json != "-":
        show_report(report)
        show(f"\n{_next(report, line)}")
    return STATUS[report.verdict]


def _next(report: Report, line: str) -> str:
    test = f"With pytest this is the test:\n    def test_it(funcbp_check):\n        {line}"
    if report.verdict == "right":
        return f"Next: keep it right. {test}"
    if report.verdict == "wrong":
        return f"Next: change what the finding says, and run this again. {test}"
    return "Next: make it decidable: other sizes or domains with --arg, more --samples, a larger --budget."
