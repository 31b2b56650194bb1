"""Mistakes that are the right formula with a wrong ingredient, order, axis, threshold or region."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify import Cause
from tests.verify.diagnosis.cases import diagnosed

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


class Case(NamedTuple):
    """A function, a wrong backward pass, and the cause that must be named, with a part of the message."""

    function: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Draw
    cause: Cause
    text: str


def normal(*shapes: tuple[int, ...]) -> Draw:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def standardized(x: Any, gamma: Any) -> Any:
    scale = jnp.sqrt(jnp.mean((gamma * x) ** 2, -1, keepdims=True))
    return jnp.sin(gamma * x) / scale


def as_if(function: Callable[..., Any], of: Callable[..., Any]) -> Callable[..., Any]:
    """The right backward pass at other arguments."""
    return lambda *given: jax.vjp(function, *of(*given[:-1]))[1](given[-1])


def chained(x: Any, a: Any) -> Any:
    return jnp.tanh(x @ a) @ a


def smoothed(x: Any) -> Any:
    return jnp.sum(jnp.log(jnp.exp(0.7 * x) + 0.3) ** 2)


def advected(u: Any) -> Any:
    return u - 0.4 * (u - jnp.roll(u, 1)) ** 2


def advected_forward(u: Any, ct: Any) -> tuple[Any]:
    return (jax.jvp(advected, (u,), (ct,))[1],)


def averaged(x: Any) -> Any:
    def step(m: Any, now: Any) -> tuple[Any, Any]:
        m = 0.9 * m + jnp.sin(now)
        return m, m

    return jax.lax.scan(step, 0.0, x)[1]


def softmax(x: Any) -> Any:
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True)


def softmax_along(axis: int) -> Callable[..., Any]:
    def backward(x: Any, ct: Any) -> tuple[Any]:
        p = softmax(x)
        return (p * (ct - (p * ct).sum(axis, keepdims=True)),)

    return backward


def hinge(m: Any) -> Any:
    return jnp.maximum(0, 1 - m)


def table_rows(table: Any, at: Any) -> Any:
    return table[at]


def rows_averaged(table: Any, at: Any, ct: Any) -> tuple[Any]:
    count = jnp.zeros(len(table)).at[at].add(1)
    return (jnp.zeros_like(table).at[at].add(ct) / jnp.maximum(count, 1)[:, None],)


def rows_drawn(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.normal(size=(4, 3)), np.array([0, 2, 2, 1, 2, 0])


def padded(table: Any) -> Any:
    return table.at[0].set(0.0) ** 2


def halves(x: Any) -> Any:
    return x.reshape(3, 2, 4).mean(1)


def two_outputs(x: Any) -> Any:
    return jnp.sin(x), x**2


def product(x: Any, a: Any) -> Any:
    return x @ a @ x


def lasso(w: Any) -> Any:
    return (0.3 * jnp.abs(w) + w**2).sum()


def masked_mean(x: Any, mask: Any) -> Any:
    return jnp.sum(x**2 * mask) / mask.sum()


def mask_drawn(rng: np.random.Generator) -> tuple[Any, ...]:
    mask = np.zeros((4, 3))
    mask.flat[: rng.integers(3, 11)] = 1
    return rng.normal(size=(4, 3)), mask


def recurrent(w: Any, xs: Any, start: Any) -> Any:
    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = jnp.tanh(h @ w + x)
        return h, h

    return (jax.lax.scan(step, start, xs)[1] ** 2).sum()


def recurrent_late(w: Any, xs: Any, start: Any, ct: Any) -> tuple[Any]:
    states = [start]
    for x in xs:
        states.append(jnp.tanh(states[-1] @ w + x))
    total, carried = jnp.zeros_like(w), jnp.zeros_like(start)
    for h in states[:0:-1]:
        delta = (2 * h * ct + carried) * (1 - h**2)
        total, carried = total + jnp.outer(h, delta), w @ delta
    return (total,)


CASES: dict[str, Case] = {
    "gain forgotten everywhere": Case(
        standardized,
        lambda x, g, ct: (as_if(standardized, lambda x, g: (x, jnp.ones_like(g)))(x, g, ct)[0],),
        normal((4, 3), (3,)),
        Cause.FACTOR_MISSING,
        "as if gamma were one",
    ),
    "matrix transposed everywhere": Case(
        chained,
        as_if(chained, lambda x, a: (x, a.T)),
        normal((3, 4), (4, 4)),
        Cause.TRANSPOSE_FORGOTTEN,
        "where its transpose belongs",
    ),
    "arguments exchanged": Case(
        lambda u, v: jnp.sin(u) * v**2,
        as_if(lambda u, v: jnp.sin(u) * v**2, lambda u, v: (v, u)),
        normal((5,), (5,)),
        Cause.SWAPPED,
        "exchanged",
    ),
    "constant left out": Case(
        smoothed,
        as_if(lambda x: jnp.sum(jnp.log(jnp.exp(0.7 * x)) ** 2), lambda x: (x,)),
        normal((5,)),
        Cause.TERM_MISSING,
        "as if the 0.3",
    ),
    "linear map not transposed": Case(
        advected, advected_forward, normal((6,)), Cause.TRANSPOSE_FORGOTTEN, "transpose"
    ),
    "recurrence run forwards": Case(
        averaged,
        lambda x, ct: (jax.jvp(averaged, (x,), (ct,))[1],),
        normal((6,)),
        Cause.PERMUTED,
        "from the last",
    ),
    "softmax over the other axis": Case(
        softmax, softmax_along(0), normal((4, 4)), Cause.REDUCTION, "over axis 0 instead"
    ),
    "softmax as if elementwise": Case(
        softmax,
        lambda x, ct: (softmax(x) * (1 - softmax(x)) * ct,),
        normal((3, 4)),
        Cause.TERM_MISSING,
        "",
    ),
    "hinge at the perceptron's threshold": Case(
        hinge, lambda m, ct: (-ct * (m < 0),), normal((40,)), Cause.WRONG_POINT, "threshold"
    ),
    "averaged where an index repeats": Case(
        table_rows, rows_averaged, rows_drawn, Cause.CONSTANT_FACTOR, "how often an index occurs"
    ),
    "overwritten row trained": Case(
        padded, lambda t, ct: (2 * t * ct,), normal((4, 3)), Cause.FACTOR_MISSING, ""
    ),
    "tile for repeat": Case(
        halves,
        lambda x, ct: (jnp.tile(ct, (2, 1)) / 2,),
        normal((6, 4)),
        Cause.PERMUTED,
        "exchanged",
    ),
    "second output ignored": Case(
        two_outputs, lambda x, ct: (ct[0] * jnp.cos(x),), normal((5,)), Cause.TERM_MISSING, ""
    ),
    "one term for both": Case(
        product, lambda x, a, ct: (2 * ct * (a @ x),), normal((4,), (4, 4)), Cause.TERM_MISSING, ""
    ),
    "sign of the absolute value": Case(
        lasso, lambda w, ct: (ct * (0.3 + 2 * w),), normal((8,)), Cause.FACTOR_MISSING, "sign"
    ),
    "mean over all for the mean over some": Case(
        masked_mean,
        lambda x, m, ct: (ct * 2 * x * m / x.size,),
        mask_drawn,
        Cause.CONSTANT_FACTOR,
        "factor",
    ),
    "state after the step, start fixed": Case(
        recurrent, recurrent_late, normal((3, 3), (4, 3), (3,)), Cause.OFF_BY_ONE, "one step later"
    ),
}
ARGNUMS: dict[str, tuple[int, ...]] = {
    "gain forgotten everywhere": (0,),
    "averaged where an index repeats": (0,),
    "one term for both": (0,),
    "mean over all for the mean over some": (0,),
    "state after the step, start fixed": (0,),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named(name: str):
    case = CASES[name]
    found = diagnosed(case.function, case.backward, case.draw, argnums=ARGNUMS.get(name), probes=5)
    assert found[0].cause is case.cause, found
    assert case.text in found[0].message, found


def test_a_region_needs_more_than_luck():
    """Wrong for a reason that no mutant has: some intermediate value always tells six numbers apart."""

    def function(x: Any) -> Any:
        return jnp.sum(jnp.sin(x)) * jnp.sum(x**2)

    def backward(x: Any, ct: Any) -> tuple[Any]:
        right = ct * jax.grad(function)(x)
        return (jnp.where(jnp.sum(jnp.sin(37 * x)) > 0, right + jnp.cos(11 * x), right),)

    found = diagnosed(function, backward, normal((3,)), probes=6)
    assert found[0].cause is Cause.VALUE, found


def test_a_region_is_named_by_its_threshold():
    def backward(x: Any, ct: Any) -> tuple[Any]:
        return (ct * (jnp.cos(x) + jnp.where(jnp.abs(x) > 1.5, jnp.cos(5 * x), 0.0)),)

    found = diagnosed(jnp.sin, backward, normal((40,)))
    assert found[0].cause is Cause.REGION, found
    assert "|x| > 1.5" in found[0].message


def test_what_is_not_finite_at_one_input_does_not_hide_the_cause():
    def draw(rng: np.random.Generator) -> tuple[Any, ...]:
        a = rng.normal(size=(3, 3))
        return (a * (rng.random() < 0.7),)

    found = diagnosed(jnp.linalg.det, lambda a, ct: (ct * jnp.linalg.inv(a).T,), draw, probes=6)
    assert found[0].cause in (Cause.FACTOR_MISSING, Cause.CONSTANT_FACTOR), found


def test_literals_of_the_reference_name_a_factor():
    found = diagnosed(lambda x: jnp.sin(x) / 0.37, lambda x, ct: (ct * jnp.cos(x),), normal((4,)))
    assert found[0].cause is Cause.CONSTANT_FACTOR
    assert "c = 0.37" in found[0].message
