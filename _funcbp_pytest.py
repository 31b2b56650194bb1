"""pytest plugin: one line in a test checks a gradient, a VJP, a Jacobian, a rule or a chain of steps.

def test_my_gradient(funcbp_check):
    funcbp_check.gradient(my_grad, of=loss, args=(w, x, y))

A top-level module, and not one of the package, because pytest loads it in every run of every project that has
funcbp installed: it must not import JAX before a test asks for it.
"""

import importlib
import inspect
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from funcbp import Rule
    from funcbp.verify import Report

_PROPERTY = "funcbp"
_OPTIONS = pytest.StashKey[dict[str, Any]]()
_UNDECIDABLE = ("warn", "raise", "ignore")
_SETTINGS: dict[str, tuple[type[int] | type[float] | type[str], str]] = {
    "samples": (int, "number of random inputs"),
    "seed": (int, "seed of everything drawn"),
    "budget": (float, "seconds that one check may take"),
    "undecidable": (str, f"what to do when nothing could be decided: {', '.join(_UNDECIDABLE)}"),
}


class UndecidedWarning(pytest.PytestWarning):
    """A check could decide neither that a gradient is right nor that it is wrong."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line, and the same in the configuration file."""
    group = parser.getgroup("funcbp", "checks of hand-written gradients")
    for name, (kind, text) in _SETTINGS.items():
        choices = _UNDECIDABLE if name == "undecidable" else None
        group.addoption(f"--funcbp-{name}", type=kind, choices=choices, default=None, help=text)
        parser.addini(f"funcbp_{name}", f"{text}; the option --funcbp-{name} comes first", default=None)
    text = "module whose own rules are collected as tests"
    group.addoption("--funcbp-rules", action="append", metavar="MODULE", help=f"{text}; may be repeated")
    parser.addini("funcbp_rules", f"{text}, one a line", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """The marker; options are validated once, here."""
    config.addinivalue_line(
        "markers",
        "funcbp(**options): options of the checks that `funcbp_check` makes in a test, such as samples=, "
        "seed=, budget=, undecidable=.",
    )
    config.stash[_OPTIONS] = dict(_configured(config))


def _configured(config: pytest.Config) -> Iterator[tuple[str, Any]]:
    for name, (kind, _) in _SETTINGS.items():
        value = config.getoption(f"--funcbp-{name}")
        written = config.getini(f"funcbp_{name}")
        if value is None and written:
            try:
                value = kind(written)
            except ValueError:
                raise pytest.UsageError(f"funcbp_{name} must be {kind.__name__}, got {written!r}.") from None
        if value is not None:
            if name == "undecidable" and value not in _UNDECIDABLE:
                raise pytest.UsageError(_not_an_answer(f"funcbp_{name}", value))
            yield name, value


def _not_an_answer(where: str, value: Any) -> str:
    return f"{where} must be one of {', '.join(_UNDECIDABLE)}, got {value!r}."


class FuncbpCheck:
    """What the fixture `funcbp_check` returns: checks that fail the test with the whole report.

    Every method takes the arguments of the function of `funcbp` after which it is named and returns its
    `Report`. Options that are not given come from the marker `funcbp`, then from the command line, then from
    the configuration file.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._options = dict(item.config.stash[_OPTIONS])
        # From the module inwards: the marker closest to the test has the last word.
        for marker in reversed(list(item.iter_markers("funcbp"))):
            if marker.args:
                pytest.fail(f"The marker funcbp takes options by name, got {marker.args}.", pytrace=False)
            self._options |= marker.kwargs
        self._undecidable = self._options.pop("undecidable", "warn")
        if self._undecidable not in _UNDECIDABLE:
            pytest.fail(_not_an_answer("undecidable=", self._undecidable), pytrace=False)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"<checks of funcbp, undecidable={self._undecidable!r}{options}>"

    def gradient(self, candidate: Any, **options: Any) -> "Report":
        """`funcbp.check_gradient`: is `candidate(*args)` the gradient of `of`?"""
        __tracebackhide__ = True
        return self._checked("check_gradient", candidate, options)

    def vjp(self, candidate: Any, **options: Any) -> "Report":
        """`funcbp.check_vjp`: is the backward pass of a rule, custom_vjp or (fwd, bwd) that of `of`?"""
        __tracebackhide__ = True
        return self._checked("check_vjp", candidate, options)

    def jacobian(self, candidate: Any, **options: Any) -> "Report":
        """`funcbp.check_jacobian`: is `candidate(*args)` the Jacobian of `of`?"""
        __tracebackhide__ = True
        return self._checked("check_jacobian", candidate, options)

    def chain(self, steps: Any, **options: Any) -> "Report":
        """`funcbp.check_chain`: which step of a chain has a wrong backward pass?"""
        __tracebackhide__ = True
        return self._checked("check_chain", steps, options)

    def rule(self, rule: "Rule", **options: Any) -> "Report":
        """`funcbp.verify.check_rule`: does a rule keep everything that it states?"""
        __tracebackhide__ = True
        import funcbp.verify

        return self._judged(funcbp.verify.check_rule, rule, _for_rule(self._options) | options)

    def _checked(self, name: str, candidate: Any, options: dict[str, Any]) -> "Report":
        __tracebackhide__ = True
        import funcbp

        return self._judged(getattr(funcbp, name), candidate, self._options | options)

    def _judged(self, check: Callable[..., "Report"], candidate: Any, options: dict[str, Any]) -> "Report":
        __tracebackhide__ = True
        started = time.perf_counter()
        report = check(candidate, **options)
        _record(self._item, report, time.perf_counter() - started)
        if report.verdict == "wrong" or (report.verdict == "undecidable" and self._undecidable == "raise"):
            pytest.fail(str(report))
        if report.verdict == "undecidable" and self._undecidable == "warn":
            warnings.warn(UndecidedWarning(str(report)), stacklevel=3)
        return report


@pytest.fixture
def funcbp_check(request: pytest.FixtureRequest) -> FuncbpCheck:
    """Checks of hand-written gradients: .gradient, .vjp, .jacobian, .chain and .rule, which assert.

    funcbp_check.gradient(my_grad, of=loss, args=(w, x, y)) fails with a report of where and why.
    """
    return FuncbpCheck(request.node)


class RuleModule(pytest.Collector):
    """A module whose own rules are tests: `module::rule`."""

    def __init__(self, *, taken: set[int], **keywords: Any) -> None:
        super().__init__(**keywords)
        # A package may hand on the rules of its modules: each is a test once.
        self._taken = taken

    def collect(self) -> Iterable["RuleItem"]:
        """One item for every rule of the module."""
        for folder in (self.config.rootpath, self.config.invocation_params.dir):
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        try:
            module = importlib.import_module(self.name)
        except ImportError as error:
            raise self.CollectError(f"--funcbp-rules={self.name}: cannot import it: {error}.") from error
        own = dict(_own_rules(module))
        if not own:
            raise self.CollectError(f"--funcbp-rules={self.name}: no Rule of its own at its top level.")
        new = {name: rule for name, rule in own.items() if id(rule) not in self._taken}
        self._taken.update(map(id, new.values()))
        return [RuleItem.from_parent(self, name=name, rule=rule) for name, rule in new.items()]


class RuleItem(pytest.Item):
    """One rule as a test: it fails with the report of `funcbp.verify.check_rule`."""

    def __init__(self, *, rule: "Rule", **keywords: Any) -> None:
        super().__init__(**keywords)
        self.rule = rule

    def runtest(self) -> None:
        """Check the rule."""
        FuncbpCheck(self).rule(self.rule)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The report alone: there is no line of a test to show."""
        if isinstance(excinfo.value, pytest.fail.Exception):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the rule's forward pass is written."""
        code = inspect.unwrap(self.rule.fwd).__code__
        return Path(code.co_filename), code.co_firstlineno - 1, self.name


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the rules of the modules asked for; first, so that -k and -m choose among them, too."""
    names = [*config.getini("funcbp_rules"), *(config.getoption("--funcbp-rules") or [])]
    taken: set[int] = set()
    for name in dict.fromkeys(names):
        module = RuleModule.from_parent(session, name=name, nodeid=name, taken=taken)
        report = module.ihook.pytest_make_collect_report(collector=module)
        module.ihook.pytest_collectreport(report=report)
        items += report.result


def _own_rules(module: ModuleType) -> Iterator[tuple[str, "Rule"]]:
    from funcbp import Rule

    for attribute, value in vars(module).items():
        if isinstance(value, Rule):
            of_funcbp = value.__module__.partition(".")[0] == "funcbp"
            asked_for = f"{value.__module__}.".startswith(f"{module.__name__}.")
            if asked_for or not of_funcbp:
                yield attribute, value


def _for_rule(options: dict[str, Any]) -> dict[str, Any]:
    """The options that `check_rule` knows, under its names for them."""
    names = {"samples": "examples", "seed": "seed", "dtypes": "dtypes", "tier": "tier"}
    return {names[name]: value for name, value in options.items() if name in names}


def _record(item: pytest.Item, report: "Report", seconds: float) -> None:
    # A property of the item travels with pytest's own reports: to other processes, and into JUnit XML.
    item.user_properties.append((_PROPERTY, f"{report.verdict:<11} {seconds:7.2f} s  {report.subject}"))


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """With -v, one line for each check: verdict, seconds, subject, test."""
    if terminalreporter.verbosity < 1:
        return
    lines = [
        f"{value}  ({report.nodeid})"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section("checks of funcbp")
        for line in lines:
            terminalreporter.line(line)
