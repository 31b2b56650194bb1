"""The allowance follows dtype, number of terms, cancellation and kinks: it is no constant tolerance."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp.verify import allowance, compare, finite_differences, monte_carlo, oracle, vjp_oracle


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bound_of_sum(n: int, dtype: str = "float32") -> float:
    return float(oracle(jnp.sum, (np.ones(n),), dtype).bound)


def test_the_bound_grows_with_the_number_of_summed_terms():
    small, large = bound_of_sum(16), bound_of_sum(16 * 256)
    relative = (large / (16 * 256)) / (small / 16)
    assert 4 < relative < 64  # about √256 for rounding that is independent from step to step


def test_the_bound_grows_with_cancellation():
    def difference(x):
        return (x + 1e6) - 1e6

    def plain(x):
        return x + 0.0

    x = np.array([0.5])
    ratio = oracle(difference, (x,), "float32").bound / oracle(plain, (x,), "float32").bound
    assert 1e5 < ratio[0] < 1e8


def test_the_bound_is_for_each_element():
    truth, bound = oracle(lambda x: x - jnp.array([1.0, 0.0]), (np.array([1.0 + 1e-4, 1e-4]),), "float32")
    assert bound[0] > 100 * bound[1]
    np.testing.assert_allclose(truth, 1e-4, rtol=1e-3)


@pytest.mark.parametrize(("wide", "narrow"), [("float64", "float32"), ("float32", "bfloat16")])
def test_the_bound_is_proportional_to_eps(wide: str, narrow: str):
    x = np.linspace(0.5, 1.5, 8)
    ratio = oracle(jnp.tanh, (x,), narrow).bound / oracle(jnp.tanh, (x,), wide).bound
    eps = float(jnp.finfo(narrow).eps) / float(jnp.finfo(wide).eps)
    assert (ratio > 0.1 * eps).all()
    assert (ratio < 2 * eps).all()


def test_moving_data_costs_nothing():
    x = rng().standard_normal((3, 4))
    bound = oracle(lambda x: jnp.flip(x.T.reshape(-1))[2:7], (x,), "float32").bound
    moved = np.flip(x.astype(np.float32).T.reshape(-1))[2:7]
    # Only the input's own rounding and that of the result are left.
    assert (bound < 12 * float(jnp.finfo("float32").eps) * np.abs(moved) * 1.4).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_order_of_summation_always_passes(dtype: str):
    terms = rng().standard_normal((1000, 97)).astype(dtype)
    terms[500:] = np.abs(terms[500:])
    with jax.enable_x64(True):
        truth, spread = jax.vmap(monte_carlo(jnp.sum), (None, 0))(0, jnp.asarray(terms, jnp.float64))
    bound = allowance(truth, spread, dtype)
    one_by_one = terms[:, 0]
    for k in range(1, terms.shape[1]):
        one_by_one = one_by_one + terms[:, k]
    assert one_by_one.dtype == dtype
    assert compare(one_by_one, truth, bound, batch_axes=1).findings == ()
    assert compare(
        one_by_one * (1 + 2e-4 * (dtype == "float32") + 2e-12), truth, bound, batch_axes=1
    ).findings


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float64", 1e-10)])
def test_a_small_error_in_one_element_is_caught(dtype: str, error: float):
    generator = rng()
    x, w = generator.standard_normal((6, 5)).astype(dtype), generator.standard_normal((5, 7)).astype(dtype)
    ct = generator.standard_normal((6, 7)).astype(dtype)
    truth, bound = vjp_oracle(lambda x, w: jnp.tanh(x @ w), (x, w), ct, dtype)
    delta = (ct * (1 - np.tanh(x @ w) ** 2)).astype(dtype)
    right = (delta @ w.T, x.T @ delta)
    assert compare(right, truth, bound, dtype=dtype).findings == ()
    wrong = right[1].copy()
    wrong[2, 3] *= 1 + error
    (finding,) = compare((right[0], wrong), truth, bound, dtype=dtype).findings
    assert finding.where == "result[1][2, 3]"


def test_kinks_are_pinned_unless_asked_for():
    def f(x):
        return jax.nn.relu(x.sum())

    x = np.array([1.0, 1e-9, -1.0])  # sums to 1e-9: in float32 rounding decides on which side of the kink
    pinned = vjp_oracle(f, (x,), 1.0, "float32", pin_branches=True)
    free = vjp_oracle(f, (x,), 1.0, "float32", pin_branches=False)
    np.testing.assert_allclose(pinned.bound[0], 0, atol=1e-5)
    assert (free.bound[0] > 10).all()  # of a gradient that is 0 or 1
    far = vjp_oracle(f, (np.ones(3),), 1.0, "float32", pin_branches=False)
    assert (far.bound[0] < 1e-5).all()


def loops(x):
    def step(carry, row):
        carry = jnp.tanh(carry + row)
        return carry, lax.cond(carry[0] > 0, jnp.sin, jnp.cos, carry)

    last, ys = lax.scan(step, jnp.zeros(x.shape[1]), x)
    doubled = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.5), (0, last))[1]
    return ys.sum(0) + doubled


@pytest.mark.parametrize(
    "function",
    [
        loops,
        lambda x: jnp.sort(x, axis=0) * jnp.arange(1.0, 4.0),
        lambda x: jax.jit(jax.checkpoint(jnp.exp))(x),
        lambda x: jnp.linalg.inv(x @ x.T + jnp.eye(4)),
        lambda x: jnp.max(x, axis=0) + jnp.cumsum(x)[3] + jnp.linalg.norm(x),
        lambda x: lax.conv(x[None, None], jnp.ones((1, 1, 2, 2)), (1, 1), "SAME"),
        lambda x: jnp.zeros(3).at[jnp.array([0, 0, 2, 1])].add(x[:, 0]),
    ],
    ids=["scan-cond-while", "sort", "jit-checkpoint", "inverse", "reductions", "convolution", "scatter"],
)
def test_the_interpreter_evaluates_the_function_and_float32_is_within_the_bound(function):
    x = rng().standard_normal((4, 3)).astype(np.float32)
    truth, bound = oracle(function, (x,), "float32")
    with jax.enable_x64(True):
        expected = function(jnp.asarray(x, jnp.float64))
    np.testing.assert_allclose(truth, expected, rtol=1e-12)
    assert np.isfinite(bound).all()
    assert (bound < 1e-3 * (1 + np.abs(truth))).all()
    assert compare(jax.jit(function)(x), truth, bound).findings == ()
    assert compare(np.asarray(function(x)) * (1 + 1e-2) + 1e-3, truth, bound).findings


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_may_round_what_it_stores_but_no_more(dtype: str):
    x = rng().standard_normal(64).astype(jnp.dtype(dtype))
    ct = rng(1).standard_normal(64).astype(jnp.dtype(dtype))
    truth, bound = vjp_oracle(jnp.tanh, (x,), ct, dtype)
    wide = np.asarray(ct, np.float32) * (1 - np.tanh(np.asarray(x, np.float32)) ** 2)
    assert compare((wide.astype(x.dtype),), truth, bound, dtype=dtype).findings == ()
    assert compare(((wide * 1.2).astype(x.dtype),), truth, bound, dtype=dtype).findings


def test_finite_differences_agree_within_their_own_error():
    x, w = rng().standard_normal((3, 4)), rng(1).standard_normal((4, 2))
    ct = rng(2).standard_normal((3, 2))
    estimate, error = finite_differences(lambda x, w: jnp.tanh(x @ w), (x, w), ct)
    truth, _ = vjp_oracle(lambda x, w: jnp.tanh(x @ w), (x, w), ct)
    for e, t, err in zip(estimate, truth, error, strict=True):
        assert (np.abs(e - t) <= err).all()
        assert (err < 1e-6).all()


def test_finite_differences_find_a_false_custom_derivative():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (1.001 * jnp.cos(x) * ct,))
    x, ct = np.linspace(0.1, 1.0, 5), np.ones(5)
    truth, _ = vjp_oracle(f, (x,), ct)
    estimate, error = finite_differences(f, (x,), ct)
    assert compare(truth, estimate, error).findings


def test_integers_have_no_cotangent():
    truth, bound = vjp_oracle(lambda x, i: x[i], (np.ones(3), np.array([0, 0])), np.ones(2))
    assert truth[1] is None
    assert bound[1] is None
    np.testing.assert_array_equal(truth[0], [2.0, 0.0, 0.0])


def test_what_a_dtype_cannot_hold_is_infinite_in_it():
    truth, bound = {"y": np.array([7e4, -7e4, 6e4])}, {"y": np.full(3, 50.0)}

    def verdict(values: list[float]) -> int:
        return len(compare({"y": np.array(values, np.float16)}, truth, bound).findings)

    assert verdict([np.inf, -np.inf, 6e4]) == 0
    assert verdict([np.inf, -np.inf, np.inf]) == 1
    assert verdict([-np.inf, -np.inf, 6e4]) == 1
    assert verdict([np.nan, -np.inf, 6e4]) == 1
    assert len(compare({"y": np.array([np.inf, -7e4, 6e4])}, truth, bound).findings) == 1
