"""Is a derivation right? The generated function against `jax.grad` at random arguments."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from .. import verify
from .._compat import enable_x64

__all__ = ["check", "draw"]


def check(derivation: Any, seed: int, samples: int) -> verify.Report:
    """A report on every gradient, element by element, in float64."""
    findings: list[verify.Finding] = []
    undecided: list[str] = []
    elements: dict[str, int] = dict.fromkeys(derivation.wrt, 0)
    worst, examples = 0.0, 0
    for k in range(samples):
        arguments = draw(derivation, np.random.default_rng((seed, k)), varied=k > 0)
        if arguments is None:
            undecided.append("no random arguments were found at which function and gradient are finite")
            continue
        found = _compare(derivation, arguments, seed)
        findings += found.findings
        undecided += found.undecided
        worst, examples = max(worst, found.worst), examples + 1
        for name, count in found.decided.items():
            elements[name] = elements.get(name, 0) + count
    checked = verify.Checked(
        elements=sum(elements.values()), by_leaf=elements, examples=examples, dtypes=("float64",), worst=worst
    )
    return verify.Report("derivation", tuple(findings), tuple(undecided), checked)


def _compare(derivation: Any, arguments: Mapping[str, np.ndarray], seed: int) -> verify.Comparison:
    trees, wrt = derivation._trees, derivation._built.program.wrt

    def chosen(*moving: Any) -> Any:
        given = {**arguments, **dict(zip(wrt, moving, strict=True))}
        return derivation.function(*trees.packed([given[n] for n in trees.names]))

    values = tuple(arguments[n] for n in wrt)
    truth, bound = verify.vjp_oracle(chosen, values, np.float64(1.0), seed=seed)
    with enable_x64(), jax.default_matmul_precision("highest"):
        _, found = jax.device_get(derivation.quick(*trees.packed([arguments[n] for n in trees.names])))
    by_leaf = trees.by_leaf(found)
    return verify.compare(
        {trees.paths[n]: by_leaf[n] for n in wrt},
        dict(zip(derivation.wrt, truth, strict=True)),
        dict(zip(derivation.wrt, bound, strict=True)),
        dtype=np.float64,
    )


def draw(derivation: Any, rng: np.random.Generator, *, varied: bool) -> dict[str, np.ndarray] | None:
    """Arguments at which the function and its gradient are finite, or None.

    Args:
        derivation: whose arguments.
        rng: the source of randomness.
        varied: whether to choose other sizes, where the derivation holds for all.
    """
    sizes = dict(derivation._built.sizes)
    if varied and derivation.general:
        fresh = rng.permutation(np.arange(3, 3 + len(sizes)))
        sizes = dict(zip(sizes, map(int, fresh), strict=True))
    for kind in ("normal", "positive", "definite"):
        arguments = {a.name: _value(a, sizes, derivation, rng, kind) for a in derivation._built.arguments}
        with enable_x64(), np.errstate(all="ignore"):
            try:
                packed = derivation._trees.packed(list(arguments.values()))
                value, gradients = jax.device_get(derivation.quick(*packed))
            except (TypeError, ValueError):
                return None
        if np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients)):
            return arguments
    return None


def _value(
    argument: Any, sizes: Mapping[str, int], derivation: Any, rng: np.random.Generator, kind: str
) -> np.ndarray:
    shape = tuple(d if isinstance(d, int) else sizes.get(d, 0) for d in argument.dims)
    if not derivation.general or 0 in shape:
        shape = argument.shape
    if not argument.floating:
        return argument.array if argument.array is not None else np.zeros(shape, argument.dtype)
    facts = derivation._built.session.facts
    x = rng.normal(size=shape)
    if argument.name in facts.stochastic:
        x = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    elif argument.name in facts.positive or kind == "positive":
        x = rng.uniform(0.5, 1.5, size=shape)
    elif (
        len(shape) == 2 and shape[0] == shape[1] and (kind == "definite" or argument.name in facts.symmetric)
    ):
        x = x @ x.T / shape[0] + np.eye(shape[0])
    return x
