"""How good the gradient checker is: wrong derivatives it should catch, right ones it should leave alone.

Every tool runs on every case with its default settings. A bug counts as caught only if the verdict is "wrong"
(undecidable is a miss); a right derivative is a false alarm if the verdict is "wrong" or the tool raises.

    python scripts/check_planted.py                         # funcbp; some minutes
    python scripts/check_planted.py --only 'softmax/*'      # one family
    python scripts/check_planted.py --peers                 # other checkers, too
    python scripts/check_planted.py --set path/to/cases.py  # another set: a module with CASES
"""

import concurrent.futures
import datetime
import fnmatch
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results" / "planted.json"
OURS = "funcbp"
WRITE_EVERY = 20.0
MESSAGE = 300  # characters kept of what a tool said
PACKAGES = ("funcbp", "jax", "jaxlib", "numpy", "chex", "scipy", "torch", "autograd")

# The cases stand beside the tests, which are not installed; scripts/ itself is already on the path.
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Config:
    """Runs the gradient checker on planted bugs and on right derivatives.

    Attributes:
        only: names of cases to run, as a pattern such as "softmax/*".
        every: of these, only every so manieth case.
        peers: also run the other checkers that are installed.
        ours: run funcbp's checker.
        set: a module with CASES, by name or by path.
        jobs: processes that share the work.
        limit: seconds that one tool may take for one case; after that it counts as having raised.
        resume: leave out what the JSON already has.
        out: the JSON; what it already has of other tools on the same set is kept.
    """

    only: str = "*"
    every: int = 1
    peers: bool = False
    ours: bool = True
    set: str = "tests.planted"
    jobs: int = 1
    limit: int = 900
    resume: bool = False
    out: Path = RESULTS


@dataclass(frozen=True)
class Outcome:
    """What one tool said about one case; `verdict` is right, wrong, undecidable, error or n/a."""

    tool: str
    case: str
    verdict: str
    seconds: float = 0.0
    causes: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    message: str = ""


def load(name: str) -> Sequence[Any]:
    """The CASES of a module, found by its name or by its path."""
    path = Path(name)
    if not path.exists():
        return importlib.import_module(name).CASES
    path = path / "__init__.py" if path.is_dir() else path
    module_name = f"planted_set_{path.parent.name if path.stem == '__init__' else path.stem}"
    folders = [str(path.parent)] if path.stem == "__init__" else None
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ValueError(f"--set {name}: neither a module nor a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module.CASES


@functools.cache
def cases_of(name: str) -> dict[str, Any]:
    return {case.name: case for case in load(name)}


def check(case: Any) -> tuple[str, float, str, list[str], list[str]]:
    """Verdict, seconds, report, causes and places of the check that fits the kind of the case."""
    import funcbp

    checker: Callable[..., Any] = getattr(funcbp, f"check_{case.kind}")
    start = time.perf_counter()
    report = checker(case.mine, of=case.of, args=case.args(), **case.options)
    seconds = time.perf_counter() - start
    causes = [getattr(finding.cause, "name", str(finding.cause)) for finding in report.findings]
    places = [str(finding.where) for finding in report.findings]
    return report.verdict, seconds, str(report)[:MESSAGE], causes, places


class TooLate(BaseException):
    """No Exception, so that no tool takes it for an error of the user's function."""


def too_late(*_: Any) -> None:
    raise TooLate


def run_one(set_name: str, limit: int, tool: str, name: str) -> Outcome:
    """In whichever process: one tool on one case."""
    case = cases_of(set_name)[name]
    causes: list[str] = []
    places: list[str] = []
    start = time.perf_counter()
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(limit)
    try:
        if tool == OURS:
            verdict, seconds, message, causes, places = check(case)
        else:
            import planted_peers

            verdict, seconds, message = planted_peers.judge(tool, case)
    except (Exception, TooLate) as error:
        verdict, seconds, message = "error", time.perf_counter() - start, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return Outcome(tool, name, verdict, seconds, causes, places, message)


def outcomes(config: Config, work: list[tuple[str, str]]) -> Iterator[Outcome]:
    """All of `work`, in this process or in several."""
    if config.jobs == 1:
        yield from (run_one(config.set, config.limit, tool, name) for tool, name in work)
        return
    # JAX is multithreaded, so its processes cannot be forked.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(config.jobs, mp_context=context) as pool:
        running = [pool.submit(run_one, config.set, config.limit, tool, name) for tool, name in work]
        yield from (done.result() for done in concurrent.futures.as_completed(running))


def is_caught(outcome: Outcome) -> bool:
    return outcome.verdict == "wrong"


def is_false_alarm(outcome: Outcome) -> bool:
    return outcome.verdict in ("wrong", "error")


def is_named(outcome: Outcome, causes: Sequence[str]) -> bool:
    """Whether the first finding names an accepted cause."""
    return bool(outcome.causes) and outcome.causes[0] in causes


def summary(results: Sequence[Outcome], cases: dict[str, Any]) -> dict[str, Any]:
    """The counts of one tool over some cases."""
    ran = [r for r in results if r.verdict != "n/a"]
    bugs = [r for r in ran if cases[r.case].is_bug]
    right = [r for r in ran if not cases[r.case].is_bug]
    caught = [r for r in bugs if is_caught(r)]
    chains = [r for r in caught if cases[r.case].where]
    return {
        "bugs": len(bugs),
        "caught": len(caught),
        "undecidable_bugs": sum(r.verdict == "undecidable" for r in bugs),
        "cause_named": sum(is_named(r, cases[r.case].causes) for r in caught),
        "cause_among_findings": sum(bool({*r.causes} & {*cases[r.case].causes}) for r in caught),
        "steps": len(chains),
        "step_named": sum(all(w.startswith(cases[r.case].where) for w in r.where) for r in chains),
        "right": len(right),
        "false_alarms": sum(is_false_alarm(r) for r in right),
        "refused": sum(r.verdict == "error" for r in right),
        "undecidable_right": sum(r.verdict == "undecidable" for r in right),
        "not_applicable": len(results) - len(ran),
        "seconds": round(sum(r.seconds for r in ran), 1),
    }


def verdicts_table(results: Sequence[Outcome], cases: dict[str, Any]) -> Table:
    """funcbp's counts, a row for each family."""
    table = Table(title="funcbp on planted derivatives")
    titles = ("bugs caught", "first cause right", "false alarms", "undecidable on right", "seconds")
    table.add_column("family")
    for title in titles:
        table.add_column(title, justify="right")
    families = dict.fromkeys(case.family for case in cases.values())
    for family in (*families, "all"):
        counts = summary([r for r in results if family in ("all", cases[r.case].family)], cases)
        if counts["bugs"] + counts["right"]:
            table.add_row(
                family,
                f"{counts['caught']}/{counts['bugs']}",
                f"{counts['cause_named']}/{counts['caught']}",
                f"{counts['false_alarms']}/{counts['right']}",
                f"{counts['undecidable_right']}/{counts['right']}",
                f"{counts['seconds']:.0f}",
            )
    return table


def tools_table(by_tool: dict[str, list[Outcome]], cases: dict[str, Any]) -> Table:
    """All tools on the cases that each can run."""
    table = Table(title="All tools, default settings")
    table.add_column("tool")
    for title in ("bugs caught", "false alarms", "of these refused", "cannot run", "seconds"):
        table.add_column(title, justify="right")
    for tool, results in by_tool.items():
        counts = summary(results, cases)
        table.add_row(
            tool,
            f"{counts['caught']}/{counts['bugs']}",
            f"{counts['false_alarms']}/{counts['right']}",
            str(counts["refused"]),
            str(counts["not_applicable"]),
            f"{counts['seconds']:.0f}",
        )
    return table


def complaints(results: Sequence[Outcome], cases: dict[str, Any]) -> Iterator[str]:
    """A line for every miss, false alarm and wrong cause."""
    for r in sorted(results, key=lambda r: r.case):
        case, found = cases[r.case], ", ".join(dict.fromkeys(r.causes))
        line = r.message.strip().splitlines()[0] if r.message.strip() else ""
        if case.is_bug and not is_caught(r):
            yield f"miss         {r.case} [{r.verdict}] wanted {case.causes[0]}: {case.note} {line}"
        elif not case.is_bug and is_false_alarm(r):
            yield f"false alarm  {r.case} [{found or r.verdict}] {line}"
        elif not case.is_bug and r.verdict == "undecidable":
            yield f"undecidable  {r.case} {line}"
        elif case.is_bug and not is_named(r, case.causes):
            yield f"wrong cause  {r.case}: {found}; wanted {' or '.join(case.causes)}"
        elif case.where and not all(where.startswith(case.where) for where in r.where):
            yield f"wrong step   {r.case}: {', '.join(r.where)}; wanted {case.where}"


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(unfinished, path)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def kept(config: Config) -> list[Outcome]:
    """Outcomes of an earlier run on the same set."""
    if not config.out.exists():
        return []
    earlier = json.loads(config.out.read_text())
    known = cases_of(config.set)
    return [Outcome(**r) for r in earlier["outcomes"] if earlier["set"] == config.set and r["case"] in known]


def document(config: Config, results: Sequence[Outcome]) -> dict[str, Any]:
    """What the JSON holds; the documentation is rendered from it."""
    cases = cases_of(config.set)
    tools = dict.fromkeys(r.tool for r in results)
    described = ("family", "kind", "causes", "note", "conventional", "where")
    return {
        "set": config.set,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "cases": {n: {a: getattr(c, a, "") for a in described} for n, c in cases.items()},
        "summary": {tool: summary([r for r in results if r.tool == tool], cases) for tool in tools},
        "outcomes": [asdict(r) for r in sorted(results, key=lambda r: (r.tool, r.case))],
    }


def main(config: Config) -> None:
    console = Console()
    cases = cases_of(config.set)
    names = [name for name in cases if fnmatch.fnmatch(name, config.only)][:: config.every]
    if not names:
        raise SystemExit(f"--only {config.only}: no such case; names look like {next(iter(cases))}")
    tools = [OURS] if config.ours else []
    if config.peers:
        import planted_peers

        tools += planted_peers.available(console)
    # In mixed order, an interrupted run still says something about every family.
    mixed = random.Random(0).sample(names, len(names))
    work = [(tool, name) for name in mixed for tool in tools]
    done = {(r.tool, r.case): r for r in kept(config)}
    if config.resume:
        work = [item for item in work if item not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    written = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("cases", total=len(work))
        for outcome in outcomes(config, work):
            done[outcome.tool, outcome.case] = outcome
            progress.update(task, advance=1, description=f"{outcome.tool} {outcome.case}")
            if time.monotonic() - written > WRITE_EVERY:
                write(config.out, document(config, list(done.values())))
                written = time.monotonic()
    write(config.out, document(config, list(done.values())))
    by_tool: dict[str, list[Outcome]] = {}
    for (tool, name), outcome in done.items():
        if name in names:
            by_tool.setdefault(tool, []).append(outcome)
    if OURS in by_tool:
        console.print(verdicts_table(by_tool[OURS], cases))
    if len(by_tool) > 1:
        console.print(tools_table(by_tool, cases))
    for line in complaints(by_tool.get(OURS, []), cases):
        console.print(escape(line), soft_wrap=True)
    console.print(f"written to {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
