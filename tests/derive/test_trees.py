"""No wrong result on random expressions; what cannot be derived is refused by name."""

import jax
import numpy as np
import pytest

import funcbp
from funcbp._compat import quick_jit
from funcbp._derive import UnsupportedError

from .trees import tree

DEFAULT, LONG, GROUP = 8, 10_000, 500


def outcome(seed: int) -> str:
    """Whether the tree of a seed is `right`, `refused`, or `undefined` at its arguments."""
    random = tree(seed)
    values = random.arguments
    dims = {name: " ".join(shape) for name, shape in random.names.items()}
    try:
        d = funcbp.derive(random.function, *values, names=list(random.names), dims=dims)
    except UnsupportedError:
        return "refused"
    str(d), d.latex()
    value, gradients = quick_jit(jax.value_and_grad(random.function, tuple(range(len(values)))))(*values)
    if not all(np.isfinite(g).all() for g in gradients):
        return "undefined"
    found_value, found = d.quick(*values)
    np.testing.assert_allclose(found_value, value, rtol=1e-11, atol=1e-11, err_msg=random.text)
    scale = max(float(np.abs(g).max()) for g in gradients)
    bounds = None
    for k, (name, truth) in enumerate(zip(random.names, gradients, strict=True)):
        where = f"seed {seed}, ∂/∂{name} of {random.text}"
        assert found[name].shape == truth.shape, where
        error = np.abs(found[name] - truth)
        if error.max() > 1e-11 * scale:  # many digits cancel: is it more than rounding explains?
            bounds = bounds or funcbp.verify.vjp_oracle(random.function, tuple(values), np.float64(1.0)).bound
            assert (error <= bounds[k]).all(), f"{where}: {error.max()} of {scale}"
    return "right"


def test_random_trees(x64) -> None:
    outcomes = [outcome(seed) for seed in range(DEFAULT)]
    assert outcomes.count("right") >= DEFAULT - 1


@pytest.mark.long
@pytest.mark.parametrize("start", range(DEFAULT, LONG, GROUP))
def test_many_random_trees(start: int, x64) -> None:
    outcomes = [outcome(seed) for seed in range(start, min(start + GROUP, LONG))]
    assert outcomes.count("right") >= 0.95 * len(outcomes)
    jax.clear_caches()
