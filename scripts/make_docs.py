"""Writes the generated parts of README.md (rules, derivations, results) and the pages of the families.

python scripts/make_docs.py            # rewrite what is between the markers
python scripts/make_docs.py --check    # exit status 1 if that would change anything
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import funcbp
from funcbp import verify
from scripts.check_rules import RESULTS as CHECKED
from scripts.derivations import NESTED, READ_ALOUD, Shown
from scripts.exploit_table import HEADINGS, exploit_rows, footnote, jacobian_sentence, kept_sentence
from scripts.family_pages import families, overview, page
from scripts.measure_rules import RESULTS as MEASURED
from scripts.rule_rows import Rows, read

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "scripts" / "results" / "bench.json"
PLANTED = ROOT / "scripts" / "results" / "planted.json"
EXPLOIT, CURVATURE, JACOBIANS = (
    ROOT / "scripts" / "results" / f"{name}.json" for name in ("exploit", "curvature", "jacobians")
)
DIGITS = ROOT / "experiments" / "results" / "digits.json"
SWEEP, GRAD = "funcbp sweep", "jax.value_and_grad"


@dataclass(frozen=True)
class Config:
    """Generated parts of the README.

    Attributes:
        check: change nothing; exit with status 1 if something is stale.
        readme: the file to write to.
        families: the directory with one of its own for every family of rules.
        bench: results of scripts/bench.py.
        planted: results of scripts/check_planted.py.
        exploit: results of scripts/bench_exploit.py.
        curvature: results of scripts/bench_curvature.py.
        jacobians: results of scripts/bench_jacobians.py.
        digits: results of the digits experiment.
    """

    check: bool = False
    readme: Path = ROOT / "README.md"
    families: Path = ROOT / "funcbp" / "rules"
    bench: Path = BENCH
    planted: Path = PLANTED
    exploit: Path = EXPLOIT
    curvature: Path = CURVATURE
    jacobians: Path = JACOBIANS
    digits: Path = DIGITS


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; pipes in cells are escaped."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([line(headings), line(("---",) * len(headings)), *map(line, rows)])


def rules_overview() -> str:
    parts = [overview(), better_than_autodiff(read(MEASURED))]
    if checked := read(CHECKED):
        parts.append(gone_through(checked))
    return "\n\n".join(parts)


def gone_through(rows: Rows) -> str:
    """How many rules have been checked in all ways, and how much that was."""
    right = [row for row in rows.values() if row.get("verdict") == "right"]
    counts = {k: sum(row[k] for row in right) for k in ("elements", "examples", "settings", "points")}
    return (
        f"{len(right)} of {len(funcbp.catalogue())} rules have been through all that is checked, in float64, "
        "float32, bfloat16 and float16 over many shapes, and found right: {elements:,} elements of "
        "{examples:,} examples, {settings:,} settings, {points:,} named points.".format(**counts)
    )


def better_than_autodiff(rows: Rows) -> str:
    """In how many rules the hand-derived pass needs less, and how exact it is, in a few sentences."""
    saved, temporary = (sum(r[k][0] < r[k][1] for r in rows.values()) for k in ("saved_bytes", "temp_bytes"))
    flops = sum(r["flops"][0] <= r["flops"][1] for r in rows.values())
    exact = sum(r["ulps"]["float32"][0] <= max(2, 1.5 * r["ulps"]["float32"][1]) for r in rows.values())
    return (
        f"{len(rows)} of {len(funcbp.catalogue())} rules have been measured, fwd and bwd in one program "
        f"against `jax.vjp` of the reference: {saved} save "
        f"fewer bytes for the backward pass, {temporary} need fewer temporary bytes, {flops} no more FLOPs "
        f"of matrix products; in {exact} the float32 error is at most 2 ulp or 1.5 times autodiff's. Per "
        f"rule: the pages of the families, and `funcbp rules`.\n\n{_finite_where_autodiff_is_not(rows)}"
    )


def _finite_where_autodiff_is_not(rows: Rows) -> str:
    found = {name: row["finite_only_here"] for name, row in rows.items() if row["finite_only_here"]}
    listed = "; ".join(f"`{name}` ({', '.join(labels)})" for name, labels in found.items())
    count = sum(map(len, found.values()))
    return f"Finite at {count} named points where autodiff of the reference gives NaN or infinity: {listed}."


def bench_table(path: Path) -> str:
    result = json.loads(path.read_text())
    rows = []
    for base in (r for r in result["networks"] if r["method"] == GRAD):
        same = {r["method"]: r for r in result["networks"] if r["case"] == base["case"]}
        for name in (SWEEP, "checkpoint dots_saveable", "checkpoint nothing_saveable"):
            rows.append((base["title"] if name == SWEEP else "", name, *_against(same[name], base)))
    headings = (
        "network", "method", "time", "temporary bytes", "matrix-product FLOPs", "trace + lower + compile"
    )  # fmt: skip
    where = f"{result['platform'].upper()}, {result['cores']} cores, jax {result['versions']['jax']}"
    lines = [
        table(headings, rows),
        "",
        f"Relative to `{GRAD}` of plain JAX; time is the median of {result['repeats']} interleaved "
        f"ratios, with quartiles; the checkpoint rows are compiled only once. {where}.",
    ]
    return "\n".join(lines)


def _against(row: dict[str, Any], base: dict[str, Any]) -> tuple[str, ...]:
    time = f"{row['time_ratio']:.2f} ({row['time_ratio_low']:.2f}-{row['time_ratio_high']:.2f})"
    ratios = (f"{row[k] / base[k]:.3f}" for k in ("temp_bytes", "flops"))
    return time, *ratios, f"{row['build_ratio']:.2f}"


def exploit_section(exploit: Path, curvature: Path) -> str:
    """What is per example, and curvature, against their rivals."""
    rows = exploit_rows(*filter(Path.exists, (exploit, curvature)))
    return f"{table(HEADINGS, [*rows])}\n\n{kept_sentence(exploit)}\n\n{footnote(exploit)}"


def planted_table(path: Path) -> str:
    """What every checker said about the planted mistakes and the right gradients, with default settings."""
    results = json.loads(path.read_text(encoding="utf-8"))
    summary, cases = results["summary"], len(results["cases"])
    run = summary["funcbp"]["bugs"] + summary["funcbp"]["right"]
    which = f"{run} of the {cases} cases, with {_versions(results['versions'])}:"
    headings = ("checker", "caught", "false alarms", "right ones refused", "undecidable", "cause named")
    order = sorted(summary, key=lambda tool: (tool != "funcbp", -summary[tool]["caught"], tool))
    rows = [(_tool(tool), *_scores(summary[tool], tool == "funcbp")) for tool in order]
    return f"{which}\n\n{table(headings, rows)}"


def _versions(versions: dict[str, str]) -> str:
    known = ("jax", "chex", "scipy", "torch", "autograd")
    return ", ".join(f"{name} {versions[name]}" for name in known if name in versions)


def _tool(name: str) -> str:
    return f"**{name}**" if name == "funcbp" else name


def _scores(score: dict[str, Any], names_causes: bool) -> tuple[str, ...]:
    bugs, right = score["bugs"], score["right"]
    named = f"{score['cause_named']}/{bugs}" if names_causes else "–"
    return (
        f"{score['caught']}/{bugs}",
        f"{score['false_alarms']}/{right}",
        f"{score['refused']}/{right}",
        f"{score['undecidable_right']}/{right}" if names_causes else "–",
        named,
    )


def causes_table() -> str:
    return table(("cause", "what it says"), [(f"`{c.name}`", c.advice) for c in verify.Cause])


def derivation(shown: Shown) -> str:
    return f"```text\n{shown.derivation()}\n```"


def read_aloud() -> str:
    """The derivations that are shown, each with what its function returns."""
    parts = []
    for shown in READ_ALOUD:
        formula = inspect.getsource(shown.function).partition("return ")[2].strip()
        parts += [f"{shown.title}, `{formula}`:", derivation(shown)]
    return "\n\n".join(parts)


def digits_table(path: Path) -> str:
    result = json.loads(path.read_text())
    config, examples = result["config"], result["examples"]
    error, timings = result["gradient_error"], result["timings"]
    largest = error["largest"]
    start = error["start"]
    network = "-".join(map(str, config["hidden"]))
    rows = [
        ("network", f"hidden layers {network}, {config['activation']}, {result['parameters']:,} parameters"),
        ("training", f"{config['epochs']} epochs, {examples['training']:,} images"),
        ("test accuracy", f"{result['test_accuracy']:.2%} of {examples['test']:,} images"),
        ("training loss, test loss", f"{result['training_loss']:.4f}, {result['test_loss']:.4f}"),
        (
            "gradient against `jax.grad`, largest relative error at the start",
            f"{start['float64']:.1e} in float64, {start['float32']:.1e} in float32",
        ),
        (
            "the same after every epoch, the largest of all",
            f"{largest['float64']:.1e} in float64, {largest['float32']:.1e} in float32",
        ),
        ("time against `jax.grad`", f"{timings['ratio']:.2f}"),
    ]
    return table(("digits", "result"), rows)


def generated(text: str, config: Config) -> str:
    """`text` with what is between the markers written anew; a pair of markers that is absent is skipped."""
    parts: dict[str, tuple[Callable[[], str], Path | None]] = {
        "rules": (rules_overview, None),
        "bench": (lambda: bench_table(config.bench), config.bench),
        "exploit": (lambda: exploit_section(config.exploit, config.curvature), config.exploit),
        "jacobians": (lambda: jacobian_sentence(config.jacobians), config.jacobians),
        "planted": (lambda: planted_table(config.planted), config.planted),
        "causes": (causes_table, None),
        "derivation": (lambda: derivation(NESTED), None),
        "derivations": (read_aloud, None),
        "digits": (lambda: digits_table(config.digits), config.digits),
    }
    for name, (make, source) in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text or end not in text or (source is not None and not source.exists()):
            continue
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n\n{make()}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def family_pages(directory: Path) -> dict[Path, str]:
    """The page of every family, beside its rules."""
    measured = read(MEASURED)
    return {directory / f / "README.md": page(f, rules, measured) for f, rules in families().items()}


def main(config: Config) -> None:
    texts = {config.readme: generated(config.readme.read_text(encoding="utf-8"), config)}
    texts |= family_pages(config.families)
    for path, new in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") == new:
            continue
        if config.check:
            raise SystemExit(f"{path.name} of {path.parent.name} is stale; run: python scripts/make_docs.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
