"""What the sweep refuses, and what it says."""

import functools

import jax
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import backprop, layers, rules
from tests.networks import CROSS_ENTROPY, data, mlp


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def scale_by(ndim):
    """γ x with a scalar γ, whose author may forget that it has no axis."""
    return layers.leaf(
        lambda key, spec: (jnp.ones(()), ()),
        lambda gain, state, x, context: (gain * x, state, x),
        lambda gain, x, y_ct: (funcbp.factors.Elementwise(x, y_ct, ndim), gain * y_ct),
    )


def test_a_factor_that_does_not_fit_its_parameter_is_refused():
    params, x, y = data()
    network = layers.chain(mlp(), scale_by(1))
    with pytest.raises(ValueError, match=r"the gradient of `1` is float64\[3\], the parameter float64\[\]"):
        backprop(network, CROSS_ENTROPY)((params, jnp.ones(())), x, y)
    backprop(layers.chain(mlp(), scale_by(0)), CROSS_ENTROPY)((params, jnp.ones(())), x, y)


def test_a_pullback_that_gives_an_array_for_a_factor_is_refused():
    layer = scale_by(0)._replace(
        bwd=layers.leaf(None, None, lambda gain, x, ct: ((x * ct).sum(), gain * ct)).bwd
    )
    with pytest.raises(TypeError, match="must give a Factor for `params`"):
        backprop(layer, rules.l2_loss)(jnp.ones(()), jnp.ones((2, 3)), jnp.ones((2, 3)))


@pytest.mark.parametrize("arrays", [{"mask": jnp.ones((3, 3), bool)}, {"positions": jnp.arange(2)}])
def test_microbatches_cut_only_what_has_the_batch_as_its_first_axis(arrays):
    params, x, y = data()
    with pytest.raises(ValueError, match="must be the batch of 6, got"):
        backprop(mlp(), CROSS_ENTROPY, microbatches=2)(params, x, y, **arrays)


def test_float16_is_refused_where_it_would_lose_the_gradient():
    params, x, y = data("float16")
    with pytest.raises(ValueError, match="use bfloat16, or reduction='sum'"):
        backprop(mlp(), CROSS_ENTROPY)(params, x, y)
    backprop(mlp(), CROSS_ENTROPY, reduction="sum")(params, x, y)


def call(network=None, loss=CROSS_ENTROPY, args=None, options=None, **arrays):
    params, x, y = data()
    network = network or mlp()
    params, x, y = (args or (lambda *a: a))(params, x, y)
    return backprop(network, loss, **(options or {}))(params, x, y, **arrays)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: call(network=layers.dense), TypeError, "`network` must be a Layer, got function"),
        (lambda: call(loss=jnp.square), TypeError, "must be a Rule of .outputs, targets., such as"),
        (lambda: call(options={"collect": "deltas"}), ValueError, "`collect` must be a tuple of names"),
        (lambda: call(options={"collect": ("delta",)}), ValueError, "got 'delta'"),
        (lambda: call(options={"reduction": "max"}), ValueError, "`reduction` must be 'mean' or 'sum'"),
        (lambda: call(options={"microbatches": 0}), ValueError, "at least 1, got 0"),
        (lambda: call(options={"microbatches": 4}), ValueError, "a batch of 6 cannot be split into 4"),
        (
            lambda: call(options={"microbatches": 2, "collect": ("deltas",)}),
            ValueError,
            "with microbatches only",
        ),
        (
            lambda: call(options={"frozen": ("1",)}),
            ValueError,
            "names '1', which is no parameter; there are 0.b",
        ),
        (lambda: call(weights=jnp.ones(5)), ValueError, r"`weights` has shape \(5,\), the loss \(6, …\)"),
        (
            lambda: call(weights=jnp.ones((6, 2))),
            ValueError,
            r"`weights` has shape \(6, 2\), the loss \(6,\)",
        ),
        (lambda: call(args=lambda p, x, y: (p, x, y[:5])), ValueError, "the same first axis, the batch"),
        (lambda: call(args=lambda p, x, y: (p, x[0, 0], y)), ValueError, "first axis is the batch"),
        (lambda: call(weights=1.0), ValueError, r"`weights` has shape \(\), the loss \(6, …\)"),
        (
            lambda: call(weights=jnp.ones(5), options={"microbatches": 2}),
            ValueError,
            r"`weights` has shape \(5,\), the loss \(6, …\)",
        ),
        (lambda: call(options={"microbatches": 2.0}), TypeError, "`microbatches` must be a whole number"),
        (lambda: call(options={"precision": "bfloat16"}), TypeError, "must be a funcbp.Precision"),
        (lambda: funcbp.Precision(compute="bf16"), ValueError, "must be a floating dtype, got 'bf16'"),
        (lambda: funcbp.Precision(compute="float16"), ValueError, "use bfloat16"),
        (lambda: funcbp.Precision(matmul="hi"), ValueError, "matmul"),
        (lambda: call(options={"frozen": (n for n in "01")}), TypeError, "must be names or a predicate"),
        (lambda: call(loss=functools.partial(CROSS_ENTROPY, 7)), TypeError, "may fix static options by name"),
        (lambda: call(args=lambda p, x, y: (list(p), x, y)), ValueError, "params must be a tuple"),
        (
            lambda: call(args=lambda p, x, y: (p, x[0].tolist(), y)),
            ValueError,
            "A list of numbers is a tree of them",
        ),
        (
            lambda: call(args=lambda p, x, y: (p, x[:, :6], y)),
            ValueError,
            r"expected \(in, out\) with in = 6",
        ),
        (lambda: call(args=lambda p, x, y: (p, x.astype("float32"), y)), TypeError, "share one dtype"),
        (
            lambda: call(args=lambda p, x, y: (p, x, y.astype(float))),
            TypeError,
            "`labels` must hold integers",
        ),
        (lambda: call(args=lambda p, x, y: (p[:4], x, y)), ValueError, "one entry a layer"),
        (
            lambda: call(loss=(lambda z, y: z[:, 0], lambda z, y: z[:, :1])),
            ValueError,
            "shapes must be equal",
        ),
    ],
)
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
