"""Write the golden files anew: `python -m tests.derive.goldens [names]`. Then read every difference."""

import sys
from pathlib import Path

import funcbp

from .cases import CASES, Case

FOLDER = Path(__file__).parent / "golden"


def derivation(case: Case) -> funcbp.Derivation:
    """The derivation of a case."""
    return funcbp.derive(
        case.function, *case.specs, wrt=case.wrt, dims=case.dims, assume=case.assume, **case.options
    )


def golden(case: Case) -> str:
    """What a golden file holds: derivation, code, LaTeX."""
    d = derivation(case)
    return "\n".join([str(d), "", "-" * 80, "", d.source(), "-" * 80, "", d.latex(), ""])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or list(CASES):
        (FOLDER / f"{name}.txt").write_text(golden(CASES[name]), encoding="utf-8")
    for stale in set(FOLDER.glob("*.txt")) - {FOLDER / f"{name}.txt" for name in CASES}:
        stale.unlink()
