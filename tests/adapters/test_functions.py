"""Plain functions of one example, in all the ways in which a parameter can meet data."""

import itertools

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp import adapters
from tests.adapters.oracle import CLIPPED, MORE, check, normal

BATCH = 4


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def squared(z, y):
    return jnp.sum((z - y) ** 2)


def test_a_multilayer_perceptron():
    def loss(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.gelu(x @ w + b)
        return -jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])[y]

    sizes = (5, 6, 3)
    params = [(normal(m, n, seed=m), normal(n)) for m, n in itertools.pairwise(sizes)]
    check(loss, params, normal(BATCH, 5), jnp.arange(BATCH) % 3, kinds="Outer Total Outer Total")


def test_convolutions():
    def loss(params, image, y):
        def conv(x, w, dims, **options):
            return lax.conv_general_dilated(x, w, dimension_numbers=dims, **options)

        x = conv(image[None], params["a"], ("NHWC", "HWIO", "NHWC"), window_strides=(2, 1), padding="SAME")
        x = jax.nn.relu(x + params["bias"])
        nchw = ("NCHW", "OIHW", "NCHW")
        x = jnp.moveaxis(x, -1, 1)
        x = conv(x, params["grouped"], nchw, window_strides=(1, 1), padding="VALID", feature_group_count=2)
        x = conv(x, params["dilated"], nchw, window_strides=(1, 1), padding=((1, 1), (0, 1)),
                 rhs_dilation=(1, 2), lhs_dilation=(2, 1))  # fmt: skip
        # A batch of two frames of one example.
        x = jnp.concatenate([x, jnp.sin(x)])
        x = conv(x, params["frames"], nchw, window_strides=(1, 1), padding="VALID")
        return squared(x.mean((2, 3)), y)

    params = {
        "a": normal(3, 2, 2, 4),
        "bias": normal(4),
        "dilated": normal(2, 4, 2, 2),
        "frames": normal(3, 2, 1, 2),
        "grouped": normal(4, 2, 2, 2),
    }
    kinds = "Patches Total Viewed(Patches) Viewed(Positions(Patches)) Viewed(Patches)"
    check(loss, params, normal(BATCH, 6, 5, 2), normal(BATCH, 3), kinds=kinds)


def test_products_of_every_shape():
    """Einsum with several batch axes, a stack of experts, an outer product, a fused and sliced projection."""

    def loss(params, x, y):
        heads = jnp.einsum("tuc,chd->hutd", x, params["heads"])
        experts = jnp.einsum("hutd,hdf->htuf", heads, params["experts"])
        back = jnp.einsum("htuf,hfc->tuc", experts, params["back"])
        q, k = jnp.split(params["fused"], 2, axis=1)
        mixed = jnp.tanh(back @ q) * (back @ (0.3 * -k / 2)) + back @ params["fused"][:, ::2].astype(
            "float64"
        )
        scale = jnp.tensordot(params["column"], mixed.sum((0, 1)), 0)
        return squared(mixed.mean((0, 1)), y) + jnp.sum(scale**2)

    params = {
        "back": normal(2, 5, 3),
        "column": normal(3),
        "experts": normal(2, 4, 5),
        "fused": normal(3, 6),
        "heads": normal(3, 2, 4),
    }
    kinds = "Viewed(Outer) Viewed(Outer) Stacked(Outer) "
    kinds += "Uses(Viewed(Outer)+Viewed(Outer)+Viewed(Outer)) Viewed(Outer)"
    check(loss, params, normal(BATCH, 2, 3, 3), normal(BATCH, 3), names=MORE, kinds=kinds)


def test_look_ups_and_a_tied_table():
    def loss(params, ids, shift, y):
        x = params["table"][ids] + params["positions"][: ids.shape[0]]
        x = x + lax.dynamic_slice(params["window"], (shift, 0), (3, 4)) + params["one"][shift]
        x = (
            x
            + jax.vmap(lambda i: params["window"][i])(ids)
            + jnp.take(params["columns"], ids, axis=1, fill_value=0).T
        )
        x = x + params["scalars"][ids][:, None]
        logits = jnp.tanh(x) @ params["table"].T
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).sum()

    params = {
        "columns": normal(4, 7, seed=4),
        "one": normal(5, 4, seed=3),
        "positions": normal(6, 4),
        "scalars": normal(7, seed=5),
        "table": normal(7, 4, seed=1),
        "window": normal(8, 4, seed=2),
    }
    ids = jnp.array([[0, 1, 0], [6, 6, 6], [-1, 9, 2], [3, 4, 5]])
    check(
        loss,
        params,
        ids,
        jnp.array([0, 1, 2, 7]),
        jnp.abs(ids) % 7,
        names=CLIPPED,
        kinds="Transposed(Rows) Rows Viewed(Total) Viewed(Rows) Sum(Rows+Transposed(Outer)) Sum(Rows+Rows)",
    )


def test_scans_over_layers_and_over_time():
    """Stacked layers; a cell with the same weights at every step, inside a scan over layers, too."""

    def loss(params, x, y):
        def layer(x, own):
            def step(h, a):
                h = jnp.tanh(own["w"] @ h + params["shared"] @ a + own["b"])
                return h, h

            _, out = lax.scan(step, params["h"], x, reverse=True)
            return jax.nn.silu(out * own["gain"]), None

        x, _ = lax.scan(layer, x, params["layers"], unroll=2)
        return squared((x @ params["layers"]["w"][0]).sum(0), y)

    params = {
        "h": normal(3),
        "layers": {"b": normal(2, 3), "gain": normal(2, 3), "w": normal(2, 3, 3)},
        "shared": normal(3, 3),
    }
    kinds = "Total Total Total Uses(Viewed(Stacked(Transposed(Outer)))+Viewed(Outer)) Transposed(Outer)"
    check(loss, params, normal(BATCH, 5, 3), normal(BATCH, 3), names=MORE, kinds=kinds)


def test_as_many_layers_as_examples():
    """What mixes up their axes has no error of shapes to stop it."""

    def loss(stack, x, y):
        def layer(x, w):
            batched = jnp.einsum("hc,hcd->hd", x, w)
            return jnp.tanh(batched + x.ravel() @ w.reshape(6, 3)), None

        x, _ = lax.scan(layer, x, stack)
        return squared(x @ stack[0, 1], y)

    kinds = "Uses(Viewed(Stacked(Stacked(Outer)))+Viewed(Stacked(Viewed(Outer)))+Viewed(Outer))"
    check(loss, normal(BATCH, 2, 3, 3), normal(BATCH, 2, 3), normal(BATCH, 2, 3), names=MORE, kinds=kinds)


def test_a_large_stack_that_is_used_outside_of_its_scan_too():
    """Its factors, not its gradients, are kept for the clipped sum."""

    def loss(stack, x):
        h, _ = lax.scan(lambda h, w: (jnp.tanh(w @ h), None), x, stack)
        return jnp.sum((stack[0] @ h) ** 2)

    check(loss, normal(3, 20, 20), normal(BATCH, 20), names=CLIPPED)


def test_convolution_at_every_step():
    def loss(kernel, frames, y):
        def step(h, frame):
            x = lax.conv_general_dilated(frame[None] + h, kernel, (1,), "SAME")
            return jnp.tanh(x), None

        h, _ = lax.scan(step, jnp.zeros((1, 2, 4)), frames)
        return squared(h, y)

    check(
        loss, normal(2, 2, 3), normal(BATCH, 3, 2, 4), normal(BATCH, 2, 4), kinds="Viewed(Positions(Patches))"
    )


def test_parameters_that_a_scan_carries_and_hands_back():
    def loss(params, x, y):
        def step(carry, own):
            h, w = carry
            return (jnp.tanh(h @ w + own @ h), w), (own, own.T)

        (h, w), (stack, turned) = lax.scan(step, (x, params["w"]), params["stack"])
        (_, last), _ = lax.scan(lambda carry, own: ((carry[1], own), None), (w, w), stack)
        return squared(w @ h + stack[1] @ x + turned[0] @ x, y) + jnp.sum(last @ x)

    params = {"stack": normal(3, 4, 4), "w": normal(4, 4)}
    check(loss, params, normal(BATCH, 4), normal(BATCH, 4), fallback=("stack",))


def test_calls_are_looked_into_and_custom_derivatives_kept():
    @jax.custom_jvp
    def clipped(x):
        return x

    clipped.defjvp(lambda primals, tangents: (primals[0], 2.0 * tangents[0]))

    @jax.custom_vjp
    def scaled(w, x):
        return w @ x

    scaled.defvjp(
        lambda w, x: (w @ x, (w, x)), lambda saved, ct: (3 * jnp.outer(ct, saved[1]), saved[0].T @ ct)
    )

    @jax.jit
    def inner(params, x):
        return jax.checkpoint(lambda w, x: jnp.tanh(w @ x))(params["w"], clipped(x))

    def loss(params, x, y):
        return squared(scaled(params["own"], inner(params, x)), y)

    params = {"own": normal(4, 4), "w": normal(4, 4)}
    check(
        loss, params, normal(BATCH, 4), normal(BATCH, 4), kinds="Total Transposed(Outer)", fallback=("own",)
    )


def test_what_is_not_known_is_formed_and_named():
    def loss(params, x, y):
        direction = params["v"] / jnp.linalg.norm(params["v"], axis=0)
        x = x @ (direction * params["g"])
        x = x @ jnp.concatenate([params["left"], params["right"]], 1)
        x = lax.cond(x.sum() > 0, lambda w: x @ w, lambda w: x @ w.T, params["branch"])
        x = x * jnp.exp(params["scale"]) + jax.nn.softplus(params["scalar"]) * lax.stop_gradient(
            params["still"]
        )
        return squared(x, y) + 0.01 * jnp.sum(params["v"] ** 2)

    params = {
        "branch": normal(4, 4),
        "g": normal(3),
        "left": normal(3, 2),
        "right": normal(3, 2),
        "scalar": normal(),
        "scale": normal(4),
        "still": normal(4),
        "unused": normal(2),
        "v": normal(3, 3),
    }
    formed = ("branch", "left", "right", "v")
    check(loss, params, normal(BATCH, 3), normal(BATCH, 4), fallback=formed)
    seen = jax.eval_shape(adapters.per_example(loss), params, normal(BATCH, 3), normal(BATCH, 4)).fallback
    assert tuple(f.parameter for f in seen) == formed
    with pytest.raises(ValueError, match=r"formed for `branch`, `left`, `right`, `v`: of `branch`, .*cond"):
        adapters.per_example(loss, strict=True)(params, normal(BATCH, 3), normal(BATCH, 4))


def test_keys_integers_functions_and_shared_arguments():
    def loss(params, x, key, ids, mask):
        assert x.dtype == jnp.float64
        kept = jax.random.bernoulli(key, 0.5, x.shape)
        x = params["function"](jnp.where(kept & mask, x, 0) @ params["w"][params["order"]])
        return squared(x + params["half"], params["w"][ids["row"]])

    params = {"function": jnp.tanh, "half": 0.5, "order": jnp.array([2, 0, 1]), "w": normal(3, 4)}
    keys, ids = jax.random.split(jax.random.key(0), BATCH), {"row": jnp.array([0, 2, 2, 1])}
    mask = jnp.array([True, True, False])
    axes = (0, 0, 0, None)
    check(loss, params, np.ones((BATCH, 3)), keys, ids, mask, in_axes=axes)


def test_frozen_parameters_take_no_part():
    def loss(params, x):
        return jnp.sum(jnp.tanh(x @ params["a"]["w"] + params["a"]["b"]) @ params["c"])

    params = {"a": {"b": normal(3), "w": normal(2, 3)}, "c": normal(3)}
    x = normal(BATCH, 2)
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, x)
    collect = ("norms", "grads", "squared_norms")
    sweep = adapters.per_example(loss, collect=collect, frozen=("a.w", "c"), reduction="sum")
    result = jax.jit(sweep)(params, x)
    np.testing.assert_allclose(result.norms, np.linalg.norm(each["a"]["b"], axis=1), rtol=1e-12)
    assert result.squared_norms["a"]["w"] is result.squared_norms["c"] is None
    np.testing.assert_allclose(result.grads["a"]["b"], each["a"]["b"].sum(0), rtol=1e-12)
    assert not result.grads["a"]["w"].any()


def test_groups_of_parameters_are_clipped_by_their_own_norm():
    def loss(params, x):
        return jnp.sum(jnp.tanh(x @ params["w"] + params["b"]))

    params, x = {"b": normal(3), "w": normal(2, 3)}, normal(BATCH, 2)
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, x)
    clip = adapters.clipped_grad(loss, max_norm={"b": 0.5, "w": 2.0}, reduction="mean")
    result = jax.jit(clip)(params, x)
    for name, bound in (("b", 0.5), ("w", 2.0)):
        norms = np.linalg.norm(each[name].reshape(BATCH, -1), axis=1)
        np.testing.assert_allclose(result.norms[name], norms, rtol=1e-12)
        c = np.minimum(1, bound / norms)
        np.testing.assert_allclose(result.grads[name], np.tensordot(c, each[name], 1) / BATCH, rtol=1e-12)


def test_half_precision():
    """Products of 16-bit numbers are summed in float32; gradients have the dtype of the parameters."""

    def loss(params, x):
        return jnp.sum(jnp.tanh(x @ params["w"] + params["b"]).astype("float32") ** 2)

    params = {"b": normal(3).astype("bfloat16"), "w": normal(4, 3).astype("bfloat16")}
    x = normal(BATCH, 5, 4).astype("bfloat16")
    result = jax.jit(adapters.per_example(loss, collect=("norms", "grads", "per_example_grads")))(params, x)
    exact = jax.tree.map(lambda p: p.astype("float64"), (params, x))
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(*exact)
    assert result.norms.dtype == jnp.float32
    assert {g.dtype.name for g in jax.tree.leaves(result.grads)} == {"bfloat16"}
    norms = np.sqrt(sum(np.square(g).reshape(BATCH, -1).sum(1) for g in jax.tree.leaves(each)))
    np.testing.assert_allclose(result.norms, norms, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: adapters.per_example(f, collect="norms"), ValueError, "must be a tuple of names"),
        (lambda f: adapters.per_example(f, collect=("deltas",)), ValueError, "got 'deltas'"),
        (lambda f: adapters.per_example(f, reduction="max"), ValueError, "must be 'mean' or 'sum'"),
        (lambda f: adapters.clipped_grad(f), ValueError, "give either `max_norm` or `coefficients`"),
        (lambda f: adapters.per_example(lambda w, x: w * x)(1.0 * jnp.ones(2), jnp.ones((2, 2))), ValueError,
         r"must return the loss of one example, a real scalar; got float64\[2\]"),
        (lambda f: adapters.per_example(f)(jnp.ones(2), jnp.ones((2, 2)), jnp.ones(3)), ValueError,
         "must have the same first axis"),
        (lambda f: adapters.per_example(f, in_axes=(0, 1))(jnp.ones(2), jnp.ones((2, 2)), 1), ValueError,
         "`in_axes` must be 0 or None"),
        (lambda f: adapters.per_example(f, frozen=("w",))({"v": jnp.ones(2)}, jnp.ones((2, 2))), ValueError,
         "`frozen` names 'w'"),
        (lambda f: adapters.per_example(f)(jnp.ones(2, complex), jnp.ones((2, 2))), TypeError, "not real"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    def loss(w, x):
        return jnp.sum(w * x)

    with pytest.raises(error, match=message):
        call(loss)
