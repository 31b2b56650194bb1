"""NumPy's side of every primitive against JAX's, and a whole Monte Carlo run both ways."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp.verify import _montecarlo, monte_carlo
from funcbp.verify._montecarlo import sampled
from funcbp.verify._pairs import evaluated
from funcbp.verify._primitives import _ANY, _FLOATING, _SEVERAL, _SHAPED

X = np.array([[0.3, -0.7, 0.5], [-0.1, 0.9, 0.2]])
Y = np.array([[1.3, 0.7, -0.5], [0.4, -0.9, 0.6]])
WHOLE = np.array([[7, -3, 2], [0, 5, -6]])
TRUTH = X > 0

ELEMENTWISE = {
    "abs": lax.abs,
    "acos": lax.acos,
    "add": lambda x: lax.add(x, Y),
    "asin": lax.asin,
    "asinh": lax.asinh,
    "atan": lax.atan,
    "atan2": lambda x: lax.atan2(x, Y),
    "ceil": lax.ceil,
    "copy": lambda x: lax.optimization_barrier(jnp.array(x, copy=True)),
    "cos": lax.cos,
    "div": lambda x: lax.div(x, Y),
    "eq": lambda x: lax.eq(x, Y),
    "exp": lax.exp,
    "floor": lax.floor,
    "ge": lambda x: lax.ge(x, Y),
    "gt": lambda x: lax.gt(x, Y),
    "is_finite": lambda x: lax.is_finite(x / (x - 0.3)),
    "le": lambda x: lax.le(x, Y),
    "log": lambda x: lax.log(lax.abs(x)),
    "logistic": lambda x: lax.logistic(100 * x),
    "lt": lambda x: lax.lt(x, Y),
    "max": lambda x: lax.max(x, Y),
    "min": lambda x: lax.min(x, Y),
    "mul": lambda x: lax.mul(x, Y),
    "ne": lambda x: lax.ne(x, Y),
    "neg": lax.neg,
    "optimization_barrier": lax.optimization_barrier,
    "pow": lambda x: lax.pow(lax.abs(x), Y),
    "rem": lambda x: lax.rem(x, Y),
    "rsqrt": lambda x: lax.rsqrt(lax.abs(x)),
    "select_n": lambda x: lax.select_n(TRUTH, x, Y),
    "sign": lax.sign,
    "sin": lax.sin,
    "sqrt": lambda x: lax.sqrt(lax.abs(x)),
    "square": lax.square,
    "sub": lambda x: lax.sub(x, Y),
    "tan": lax.tan,
    "and": lambda x: lax.bitwise_and(x > 0, TRUTH),
    "or": lambda x: lax.bitwise_or(x > 0.4, ~TRUTH),
    "xor": lambda x: lax.bitwise_xor(x > 0.4, TRUTH),
    "not": lambda x: lax.bitwise_not(x > 0),
}
SHAPED = {
    "add_any": jax.grad(lambda x: jnp.sum(x * jnp.sin(x))),
    "argmax": lambda x: lax.argmax(x, 1, jnp.int32),
    "argmin": lambda x: lax.argmin(x, 0, jnp.int32),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (4, 2, 3), (1, 2)),
    "concatenate": lambda x: lax.concatenate([x, Y], 1),
    "cummax": lambda x: lax.cummax(x, 1),
    "cummin": lambda x: lax.cummin(x, 0, reverse=True),
    "cumprod": lambda x: lax.cumprod(x, 1),
    "cumsum": lambda x: lax.cumsum(x, 1, reverse=True),
    "dot_general": lambda x: jnp.einsum("ij,kj->ik", x, Y) @ jnp.einsum("bi,bi->b", x, Y),
    "expand_dims": lambda x: lax.expand_dims(x, (1,)),
    "integer_pow": lambda x: x**-3 + x**5,
    "iota": lambda x: x + lax.broadcasted_iota(jnp.float64, (2, 3), 1),
    "pad": lambda x: lax.pad(x, 9.0, ((1, -1, 2), (-1, 2, 0))),
    "reduce_and": lambda x: jnp.all(x > 0, axis=1),
    "reduce_max": lambda x: jnp.max(x, axis=1) + jnp.max(WHOLE + (x > 9)),
    "reduce_min": lambda x: jnp.min(x, axis=0) + jnp.min(WHOLE + (x > 9)),
    "reduce_or": lambda x: jnp.any(x > 0.6, axis=0),
    "reduce_prod": lambda x: jnp.prod(x, axis=1),
    "reduce_sum": lambda x: jnp.sum(x, axis=0),
    "reshape": lambda x: lax.reshape(x, (3, 2)),
    "reshape in another order": lambda x: lax.reshape(x, (6,), dimensions=(1, 0)),
    "rev": lambda x: lax.rev(x, (1,)),
    "slice": lambda x: lax.slice(x, (0, 1), (2, 3), (1, 2)),
    "split": lambda x: lax.split(x, (1, 2), axis=1),
    "squeeze": lambda x: lax.squeeze(x[:, None], (1,)),
    "stop_gradient": lax.stop_gradient,
    "transpose": lambda x: lax.transpose(x, (1, 0)),
    "triangular_solve": lambda x: lax.linalg.triangular_solve(Y[:, :2] + np.eye(2), x, left_side=True),
    "scan": lambda x: lax.scan(lambda c, r: (c * r + 1, c), x[:, 0], x.T, reverse=True),
    "scan of nothing": lambda x: lax.scan(lambda c, r: (c, r), x, jnp.zeros((0, 2))),
    "while": lambda x: lax.while_loop(lambda c: jnp.sum(c) < 40, lambda c: c + jnp.abs(c), x),
    "cond": lambda x: lax.cond(x[0, 0] > 0, lambda y: y * 2, lambda y: y * 3, x),
    "gather": lambda x: x[:, jnp.array([2, 0])],
    "whole division": lambda x: lax.div(WHOLE + (x > 9), jnp.full_like(WHOLE, -4)),
    "random": lambda x: x + jax.random.normal(jax.random.key((10 * x[0, 0]).astype(int)), (2, 3)),
    "narrow product": lambda x: jnp.dot(
        x.astype(jnp.bfloat16), Y.T.astype(jnp.bfloat16), preferred_element_type=jnp.float32
    ),
}
UNNAMED = {"copy_p", "stack", "stop_gradient", "unstack"}  # of some versions of JAX only


def test_every_line_is_tried():
    lines = {*_ANY, *_FLOATING, *_SEVERAL, *_SHAPED}
    assert lines <= {*ELEMENTWISE, *SHAPED, *UNNAMED}, lines - {*ELEMENTWISE, *SHAPED, *UNNAMED}


@pytest.mark.parametrize("name", [*ELEMENTWISE, *SHAPED])
def test_as_by_jax(name: str, x64: None):
    function = (ELEMENTWISE | SHAPED)[name]
    ours, theirs = jax.tree.leaves(evaluated(function, X)), jax.tree.leaves(function(jnp.asarray(X)))
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, np.ndarray)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-14, atol=1e-300
        )


@pytest.mark.parametrize("source", ["bool", "int8", "int64", "uint32", "float16", "float32", "float64"])
def test_casts_as_by_jax(source: str, x64: None):
    values = np.array([0.0, 1.0, 0.3, -2.7, 300.7, 2.0**24 + 1, 3e9, 1e300, np.nan, np.inf])
    with np.errstate(all="ignore"):
        x = values[:6].astype(source) if source != "float64" else values
    if source == "int64":
        x = np.append(x, [-1, 2**40 + 5, 2**53 + 1])

    def function(x: jax.Array) -> list[jax.Array]:
        targets = ["bool", "int8", "int32", "uint32", "float16", "float32", "float64", "complex64"]
        return [lax.convert_element_type(x, target) for target in targets]

    for ours, theirs in zip(evaluated(function, x), jax.jit(function)(x), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_value_and_spread_are_those_of_the_compiled_run(x64: None):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, 6)), rng.standard_normal((40, 6, 6))

    def function(x: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        y = jnp.sort(jnp.maximum(jnp.tanh(w @ x), 0))
        h, _ = lax.scan(lambda h, row: (jnp.sin(row @ h) * h, None), y, w)
        added = jnp.zeros(3).at[jnp.array([0, 2, 0, 0, 1, 0])].add(x)
        factor = jnp.linalg.cholesky(w @ w.T)
        return {"y": jnp.cumsum(y), "max": jnp.max(x), "h": h, "factor": factor, "added": added}

    at_once = sampled(function, samples=64)(0, x, w)
    compiled = jax.vmap(monte_carlo(function, samples=64), (None, 0, 0))(0, x, w)
    for name in at_once[0]:
        np.testing.assert_allclose(at_once[0][name], compiled[0][name], rtol=1e-9, atol=1e-9)
        ours, theirs = at_once[1][name], np.asarray(compiled[1][name])
        assert ((ours == 0) == (theirs == 0)).all()
        assert abs(np.median(np.log(ours[ours > 0] / theirs[ours > 0]))) < 0.1


def test_what_is_compiled_comes_back_as_arrays_of_numpy(x64: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_montecarlo, "_AT_ONCE", 0)
    for result in jax.tree.leaves(sampled(lambda x: {"y": x * x}, samples=2)(0, X)):
        assert isinstance(result, np.ndarray)
