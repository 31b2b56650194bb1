"""Planted cases are what they claim: right ones agree with autodiff, every wrong one differs somewhere."""

import collections
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify import Cause
from funcbp.verify._pairs import evaluated
from tests.planted import CASES, Case, accuracy, problem

SAME = 1e-9
# Of `check_rule` alone: a planted case has no rule around it.
OF_RULES = {"GRAD_DIFFERS", "COMPOSED", "FORWARD", "JACOBIAN", "REFERENCE"}
UNSEEN_IN_VALUES = {
    "DTYPE", "STRUCTURE", "VMAP", "SECOND_ORDER", "STALE", "NONDETERMINISTIC", "PRIMAL_DIFFERS", "RAISES",
    "JIT_DIFFERS",
}  # fmt: skip
Tree = Any


def named(*causes: str) -> Any:
    """Over the bugs of these causes that no comparison of values at one point shows."""
    chosen = [c for c in CASES if c.causes and c.causes[0] in causes]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=lambda c: c.name)


def thinned(cases: list[Case]) -> Any:
    """Over a quarter of the cases: each is compiled, which takes minutes for all of them (`--long`)."""
    marks = [() if i % 4 == 0 else pytest.mark.long for i in range(len(cases))]
    params = [pytest.param(c, marks=mark, id=c.name) for c, mark in zip(cases, marks, strict=True)]
    return pytest.mark.parametrize("case", params)


def both(case: Case, dtype: Any, exposed: bool) -> tuple[Tree, Tree]:
    """What the user wrote and the truth; computed by NumPy, because that is faster where it is possible."""
    p = problem(case, dtype, exposed)
    ct = p.cotangent()

    def run(args: Any, ct: Any) -> tuple[Tree, Tree]:
        return p.vjp(args, ct), jax.vjp(p.function, *args)[1](ct)

    try:
        return evaluated(run, p.args, ct)
    except jax.errors.JAXTypeError:
        return run(p.args, ct)


def test_the_set_is_large_and_names_every_cause():
    assert sum(c.is_bug for c in CASES) >= 75
    assert sum(not c.is_bug for c in CASES) >= 70
    used = {cause for c in CASES for cause in c.causes}
    assert used <= {cause.name for cause in Cause}
    assert {cause.name for cause in Cause} - used == OF_RULES


def test_names_are_unique_and_every_bug_is_explained():
    assert max(collections.Counter(c.name for c in CASES).values()) == 1
    assert [c.name for c in CASES if c.is_bug and not c.note] == []
    assert [c.name for c in CASES if c.conventional and c.is_bug] == []


def test_common_mistakes_occur_in_several_families():
    families = collections.defaultdict(set)
    for c in CASES:
        for cause in c.causes[:1]:
            families[cause].add(c.family)
    common = "SIGN CONSTANT_FACTOR TRANSPOSED REDUCTION TERM_MISSING FACTOR_MISSING WRONG_POINT STATISTICS"
    assert {cause: len(families[cause]) for cause in common.split() if len(families[cause]) < 3} == {}


@pytest.mark.usefixtures("x64")
@thinned([c for c in CASES if not c.is_bug])
def test_a_right_derivative_is_that_of_autodiff(case: Case):
    error = accuracy(*both(case, jnp.float64, exposed=False))
    assert (error > SAME) == bool(case.conventional), error


@pytest.mark.usefixtures("x64")
@thinned([c for c in CASES if c.is_bug and c.causes[0] not in UNSEEN_IN_VALUES])
def test_a_bug_differs_from_autodiff_where_it_is_exposed(case: Case):
    # Overflow is a matter of the type.
    dtype = jnp.float32 if case.causes[0] == "NONFINITE" else jnp.float64
    assert accuracy(*both(case, dtype, exposed=True)) > SAME


@pytest.mark.usefixtures("x64")
@thinned([c for c in CASES if c.exposed])
def test_the_example_hides_a_bug_of_a_region(case: Case):
    assert accuracy(*both(case, jnp.float64, exposed=False)) <= SAME


def plain(case: Case) -> tuple[Any, Tree, Tree]:
    """In the types of the example."""
    p = problem(case)
    ct = p.cotangent()
    return p, ct, p.vjp(p.args, ct)


@named("DTYPE")
def test_dtype(case: Case):
    p, _, mine = plain(case)
    assert {jnp.asarray(x).dtype for x in jax.tree.leaves(p.args)} != {np.asarray(x).dtype for x in mine}


@named("STRUCTURE", "RAISES")
def test_wrong_number_of_things(case: Case):
    try:
        p, _, mine = plain(case)
    except (IndexError, ValueError):
        return
    assert jax.tree.structure(mine) != jax.tree.structure(p.args)


@named("VMAP")
def test_only_vmap(case: Case):
    p, ct, mine = plain(case)
    assert accuracy(mine, p.truth(ct)) < 1e-5
    rows = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), (p.args, ct))
    assert accuracy(jax.tree.map(lambda x: x[0], jax.vmap(p.vjp)(*rows)), mine) > 1e-2


@named("SECOND_ORDER")
def test_only_second_order(case: Case):
    p, ct, mine = plain(case)
    assert accuracy(mine, p.truth(ct)) < 1e-5
    direction = jax.tree.map(jnp.ones_like, p.args)
    second = jax.jvp(lambda args: p.vjp(args, ct), (p.args,), (direction,))[1]
    true = jax.jvp(lambda args: jax.vjp(p.function, *args)[1](ct), (p.args,), (direction,))[1]
    assert accuracy(second, true) > 1e-2


@named("STALE")
def test_only_after_other_arguments(case: Case):
    p, ct, mine = plain(case)
    assert accuracy(mine, p.truth(ct)) < 1e-5
    others = jax.tree.map(lambda x: x + 1, p.args)
    true = jax.vjp(p.function, *others)[1](ct)
    assert accuracy(p.vjp(others, ct), true) > 1e-2


@named("NONDETERMINISTIC")
def test_two_calls_differ(case: Case):
    p, ct, mine = plain(case)
    assert accuracy(p.vjp(p.args, ct), mine) > 1e-4


@named("PRIMAL_DIFFERS")
def test_only_the_value(case: Case):
    p, ct, mine = plain(case)
    assert accuracy(mine, p.truth(ct)) < 1e-5
    args = case.args()
    value = case.mine[0](*args)[0] if case.kind == "vjp" else case.mine(*args)[0]
    assert accuracy(value, case.of(*args)) > 1e-2


@named("JIT_DIFFERS")
def test_only_in_one_mode(case: Case):
    p, ct, mine = plain(case)
    try:
        compiled = jax.jit(p.vjp)(p.args, ct)
    except jax.errors.TracerBoolConversionError:
        return
    assert accuracy(compiled, mine) > 1e-4
