"""Derive random expressions and compare each with `jax.grad`: `python -m tests.derive.random_trees`.

What was found is appended to a file of lines, so that a run can be stopped and taken up again, and several
can share the work (`--start 1 --step 2`); `record.json` next to this file is the summary of all of them:

    python -m tests.derive.random_trees --lines a.jsonl
    python -m tests.derive.random_trees --lines a.jsonl b.jsonl --stop 0 --record
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import jax
import numpy as np

import funcbp
from funcbp._derive import UnsupportedError

from .numerics import evaluated
from .trees import Tree, tree

__all__ = ["RECORD", "TREES", "Outcome", "digest", "outcome", "summary"]

RECORD = Path(__file__).parent / "record.json"
TREES = 10_000
PRINTED = 5
"""Of so many trees one is also printed."""
_ROUNDING = 1e-11
_CLEARED = 1_000  # programs after which JAX forgets what it has compiled


@dataclass(frozen=True)
class Outcome:
    """What came of the tree of a seed.

    Attributes:
        seed: of the tree.
        kind: `right`, `wrong`, `refused`, `failed` for an error that is no refusal, or `undefined` where the
            gradient that JAX finds is not finite.
        error: the largest of a gradient's elements, relative to the largest element of all gradients.
        why: what is wrong, or the operation that is refused.
    """

    seed: int
    kind: str
    error: float = 0.0
    why: str = ""


def outcome(seed: int) -> Outcome:
    """Derive the tree of a seed, print it if it is one of those, and compare it with `jax.grad`."""
    random = tree(seed)
    try:
        d = _derived(random)
        if seed % PRINTED == 0:
            str(d), d.latex()
        return _compared(seed, random, d)
    except UnsupportedError as refusal:
        return Outcome(seed, "refused", why=_operation(str(refusal)))
    except np.linalg.LinAlgError:
        return Outcome(seed, "undefined")
    except Exception as error:  # whatever it is, it belongs to the seed
        return Outcome(seed, "failed", why=f"{type(error).__name__}: {error}"[:300])


def _derived(random: Tree) -> funcbp.Derivation:
    dims = {name: " ".join(shape) for name, shape in random.names.items()}
    return funcbp.derive(random.function, *random.arguments, names=list(random.names), dims=dims)


def _operation(message: str) -> str:
    found = re.search(r"operation (`\w+`).*?(: .*)?$", message, re.DOTALL)
    return found[1] + (found[2] or "") if found else message


def _compared(seed: int, random: Tree, d: funcbp.Derivation) -> Outcome:
    values = random.arguments
    differentiated = jax.value_and_grad(random.function, tuple(range(len(values))))
    value, gradients = evaluated(differentiated, *values)
    if not all(np.isfinite(g).all() for g in gradients):
        return Outcome(seed, "undefined")
    found_value, found = evaluated(d.plain, *values)
    shapes = [np.shape(found[n]) for n in random.names]
    if shapes != [g.shape for g in gradients]:
        return Outcome(seed, "wrong", why=f"shapes {shapes}: {random.text}")
    scale = max(float(np.abs(g).max()) for g in gradients)
    errors = [np.abs(found[n] - g) for n, g in zip(random.names, gradients, strict=True)]
    worst = float(max(e.max() for e in errors))
    error = worst / scale if scale else float(worst > 0)
    off = abs(float(found_value - value))
    if error <= _ROUNDING and off <= _ROUNDING * (1 + abs(float(value))):
        return Outcome(seed, "right", error)
    # Many digits cancel: is it more than rounding explains?
    _, bounds = funcbp.verify.vjp_oracle(random.function, tuple(values), np.float64(1.0))
    explained = all((e <= b).all() for e, b in zip(errors, bounds, strict=True))
    return Outcome(seed, "right" if explained else "wrong", error, "" if explained else random.text)


def digest(count: int = TREES) -> str:
    """What identifies the generator: the texts and arguments of every hundredth tree."""
    shown = [(t.text, t.names) for t in map(tree, range(0, count, 100))]
    return blake2b(repr(shown).encode(), digest_size=8).hexdigest()


def summary(outcomes: Iterable[Outcome]) -> dict[str, object]:
    """Counts, the worst error, and the seeds where a larger one is rounding: the gradient nearly cancels."""
    found = list(outcomes)
    kinds = Counter(o.kind for o in found)
    right = [o for o in found if o.kind == "right"]
    return {
        "generator": digest(),
        "trees": len(found),
        **{kind: kinds[kind] for kind in ("right", "wrong", "failed", "refused", "undefined")},
        "refused_operations": dict(Counter(o.why for o in found if o.kind == "refused").most_common()),
        "many_digits_cancel": sorted(o.seed for o in right if o.error > _ROUNDING),
        "worst_relative_error_of_others": max((o.error for o in right if o.error <= _ROUNDING), default=0.0),
        "jax": jax.__version__,
    }


def _known(paths: Iterable[Path]) -> dict[int, Outcome]:
    lines = [line for p in paths if p.exists() for line in p.read_text(encoding="utf-8").splitlines()]
    return {o.seed: o for o in (Outcome(**json.loads(line)) for line in lines)}


def main() -> None:
    """Run what is left of the trees, or sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lines", type=Path, nargs="+", required=True, help="a line for every tree; new ones go to the first"
    )
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stop", type=int, default=TREES)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write the summary")
    chosen = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    done = _known(chosen.lines)
    left = [s for s in range(chosen.start, chosen.stop, chosen.step) if s not in done]
    with chosen.lines[0].open("a", encoding="utf-8") as file:
        for count, seed in enumerate(left, 1):
            done[seed] = outcome(seed)
            file.write(json.dumps(asdict(done[seed])) + "\n")
            file.flush()
            if done[seed].kind in ("wrong", "failed"):
                print(done[seed], flush=True)
            if count % 100 == 0:
                print(f"{count} of {len(left)}", dict(Counter(o.kind for o in done.values())), flush=True)
            if count % _CLEARED == 0:
                jax.clear_caches()
    if chosen.record:
        RECORD.write_text(json.dumps(summary(done.values()), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
