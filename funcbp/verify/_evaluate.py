"""Truth, autodiff and candidate at many probes, each under one compilation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from .._compat import enable_x64, quick_jit
from ._lift import lifted
from ._montecarlo import SAMPLES, monte_carlo, sampled
from ._problem import Probe, Problem, Typing, like_output

__all__ = ["CHUNK", "Evaluator", "Outcome", "Truth"]

CHUNK = 16
"""Probes evaluated together: always this many, so that nothing is compiled twice."""

_ELEMENTS = 2**21  # in a chunk: larger arguments come in smaller chunks
_EAGER = 12  # probes, where the candidate cannot be traced


class Outcome(NamedTuple):
    """What a backward pass gave at one probe: NumPy, float64 (complex128).

    Attributes:
        value: tree of the output, or None if it gives none.
        cotangents: one for each leaf in `Problem.wrt`.
    """

    value: Any
    cotangents: tuple[np.ndarray, ...]


class Truth(NamedTuple):
    """True outcome, and the rounding error to expect per unit of eps in the same form."""

    exact: Outcome
    spread: Outcome


class Evaluator:
    """Evaluates the two sides of a problem at probes.

    Args:
        problem: reference and candidate.
        seed: of the Monte Carlo noise.
        chunk: probes evaluated together.
    """

    def __init__(self, problem: Problem, seed: int = 0, chunk: int = CHUNK) -> None:
        self.problem, self.seed = problem, seed
        size = sum(np.size(leaf.value) for leaf in problem.leaves)
        self.chunk = int(max(1, min(chunk, _ELEMENTS // max(size, 1))))
        self.untraceable: dict[Typing, Exception] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def cotangents(self, values: Any, cotangent: Any) -> tuple[Any, ...]:
        """The cotangents by `jax.vjp` of the reference. Traceable."""
        return self.problem.pull(values, cotangent)[1]

    def truth(self, probes: Sequence[Probe]) -> list[Truth]:
        """Value and cotangents by `jax.vjp` of the reference in float64, with their Monte Carlo spread."""
        typing = Typing("float64", True)
        if "truth" not in self._compiled:
            self._compiled["truth"] = sampled(self.problem.pull, lift=True)

        def run(stacked: tuple[Any, Any]) -> Any:
            return self._compiled["truth"](self.seed, *stacked)

        return [Truth(_outcome(exact), _outcome(spread)) for exact, spread in self._run(run, probes, typing)]

    def autodiff(self, probes: Sequence[Probe], typing: Typing) -> list[Outcome]:
        """Value and cotangents by `jax.vjp` of the reference in the dtypes of `typing`."""
        run = self._batched(("autodiff", typing), self.problem.pull)
        return [_outcome(found) for found in self._run(run, probes, typing)]

    def candidate(self, probes: Sequence[Probe], typing: Typing) -> list[Outcome]:
        """Value and cotangents from the candidate; of the first few probes only if it cannot be traced.

        Raises:
            Exception: whatever the candidate raises.
        """
        out = self._out(typing)

        def one(values: tuple[Any, ...], cotangent: Any) -> Any:
            return self.problem.candidate(values, like_output(cotangent, out))

        if typing not in self.untraceable:
            run = self._batched(("candidate", typing), one)
            try:
                return [_outcome(found) for found in self._run(run, probes, typing)]
            except Exception as error:
                if ("candidate", typing, True) in self._compiled:
                    raise
                self.untraceable[typing] = error
        return [self.eager(probe, typing) for probe in probes[:_EAGER]]

    def without_casts(self, probes: Sequence[Probe]) -> list[Outcome]:
        """The candidate in float64 throughout, whatever it casts to inside."""
        typing = Typing("float64", True)
        out = self._out(typing)

        def one(values: tuple[Any, ...], cotangent: Any) -> Any:
            return self.problem.candidate(values, like_output(cotangent, out))

        run = self._batched("lifted", lifted(one))
        return [_outcome(found) for found in self._run(run, probes, typing)]

    def own_spread(self) -> Callable[..., Any]:
        """`(values, cotangent) -> (outcome, spread)` of the candidate in float64: its own rounding error."""
        out = self._out(Typing("float64", True))

        def one(values: tuple[Any, ...], cotangent: Any) -> Any:
            return self.problem.candidate(values, like_output(cotangent, out))

        if "own" not in self._compiled:
            noisy = monte_carlo(one, samples=SAMPLES)
            self._compiled["own"] = quick_jit(lambda values, ct: noisy(self.seed, values, ct))
        return self._compiled["own"]

    def eager(self, probe: Probe, typing: Typing) -> Outcome:
        """The candidate at one probe, without jit."""
        out = self._out(typing)
        with enable_x64(typing.x64), jax.default_matmul_precision("highest"):
            values = self.problem.typed(probe.values, typing)
            found = self.problem.candidate(values, like_output(probe.cotangent, out))
            return _outcome(jax.device_get(found))

    def vmapped(self, probes: Sequence[Probe], typing: Typing, shared: frozenset[int]) -> list[Outcome]:
        """The candidate under `jax.vmap` over a few probes; leaves in `shared` are not batched but those of
        the first probe."""
        out = self._out(typing)
        with enable_x64(typing.x64), jax.default_matmul_precision("highest"):
            stacked = self._stacked(probes, typing)
            first = self.problem.typed(probes[0].values, typing)
            values = tuple(first[i] if i in shared else x for i, x in enumerate(stacked[0]))
            axes = tuple(None if i in shared else 0 for i in range(len(values)))

            def one(values: tuple[Any, ...], cotangent: Any) -> Any:
                return self.problem.candidate(values, like_output(cotangent, out))

            found = jax.device_get(jax.jit(jax.vmap(one, (axes, 0)))(values, stacked[1]))
        return [_outcome(jax.tree.map(lambda x, k=k: x[k], found)) for k in range(len(probes))]

    def rounded(self, probe: Probe, typing: Typing) -> Probe:
        """A probe whose numbers the dtypes of `typing` can hold exactly."""
        with np.errstate(all="ignore"):
            values = tuple(
                _wide(x) if leaf.differentiable else value
                for leaf, value, x in zip(
                    self.problem.leaves, probe.values, self.problem.cast(probe.values, typing), strict=True
                )
            )
            cotangent = jax.tree.map(_representable, probe.cotangent, self._out(typing))
        return replace(probe, values=values, cotangent=cotangent)

    def _out(self, typing: Typing) -> Any:
        key = ("out", typing)
        if key not in self._compiled:
            with enable_x64(typing.x64):
                example = self.problem.typed(self.problem.example, typing)
                self._compiled[key] = jax.eval_shape(self.problem.reference, *example)
        return self._compiled[key]

    def _batched(self, key: Any, one: Callable[..., Any]) -> Callable[..., Any]:
        if key not in self._compiled:
            self._compiled[key] = quick_jit(lambda stacked: jax.lax.map(lambda x: one(*x), stacked))
        return self._compiled[key]

    def _run(self, run: Callable[..., Any], probes: Sequence[Probe], typing: Typing) -> list[Any]:
        outcomes: list[Any] = []
        with enable_x64(typing.x64), jax.default_matmul_precision("highest"):
            for start in range(0, len(probes), self.chunk):
                part = list(probes[start : start + self.chunk])
                padded = part + [part[-1]] * (self.chunk - len(part))
                found = jax.device_get(run(self._stacked(padded, typing)))
                outcomes += [jax.tree.map(lambda x, k=k: x[k], found) for k in range(len(part))]
        return outcomes

    def _stacked(self, probes: Sequence[Probe], typing: Typing) -> tuple[tuple[Any, ...], Any]:
        each = [self.problem.cast(probe.values, typing) for probe in probes]
        cotangent = jax.tree.map(
            lambda *c: np.stack([np.asarray(x) for x in c]), *(p.cotangent for p in probes)
        )
        return tuple(_stack(leaf) for leaf in zip(*each, strict=True)), cotangent


def _representable(cotangent: Any, out: Any) -> np.ndarray:
    if not jnp.issubdtype(out.dtype, jnp.inexact):
        return np.zeros(out.shape)
    return _wide(np.asarray(cotangent).astype(out.dtype))


def _stack(arrays: Sequence[Any]) -> Any:
    return np.stack(arrays) if isinstance(arrays[0], np.ndarray) else jnp.stack(arrays)


def _outcome(found: tuple[Any, tuple[Any, ...]]) -> Outcome:
    value, cotangents = found
    return Outcome(jax.tree.map(_wide, value), tuple(map(_wide, cotangents)))


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.astype(np.complex128)
    return x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
