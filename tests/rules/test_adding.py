"""Adding to the catalogue: a new elementwise function is one line, a new identity a few."""

import math

import jax
from jax import numpy as jnp

from funcbp.rules.activations._table import at, elementwise
from funcbp.rules.matrix._algebra import T, inner
from funcbp.rules.matrix._identity import scalar
from funcbp.verify import check_rule

# fmt: off
gaussian = elementwise(__name__, "gaussian", "q = e^(-p²), σ′ = -2 p e^(-p²)", lambda p: jnp.exp(-p * p), lambda p: -2 * p * jnp.exp(-p * p), "p", lambda p: math.e ** -jnp.square(p), {"top": at(0.0, 0.0)})  # noqa: E501
wrong = elementwise(__name__, "wrong", "q = e^(-p²), σ′ = -2 p e^(-p²)", lambda p: jnp.exp(-p * p), lambda p: 2 * p * jnp.exp(-p * p), "p", lambda p: math.e ** -jnp.square(p))  # noqa: E501
# fmt: on

distance = scalar(
    "distance",
    "Half the squared distance of two matrices.",
    "C = ½ ‖A - B‖²",
    "dC = (A - B) : (dA - dB)",
    "∂A = A - B, ∂B = B - A",
    lambda a, b: (inner(r := a - b, r) / 2, (r,)),
    lambda r: (r, -r),
    axes="a: m n, b: m n",
    reference=lambda a, b: jnp.trace((a - b) @ T(a - b), axis1=-2, axis2=-1) / 2,
    source="the definition",
    saves="A - B",
)


def test_a_line_is_a_rule():
    check_rule(gaussian, tier="quick").raise_if_failed()
    x = jnp.array([0.0, 1.0])
    assert jax.grad(lambda x: gaussian(x).sum())(x).tolist() == [0.0, -2 * float(jnp.exp(-1.0))]


def test_a_few_lines_are_an_identity():
    check_rule(distance, tier="quick").raise_if_failed()
    assert "Backward:    C̄ times ∂A = A - B, ∂B = B - A" in str(distance.__doc__)


def test_a_wrong_line_is_found():
    assert check_rule(wrong, tier="quick").verdict == "wrong"
