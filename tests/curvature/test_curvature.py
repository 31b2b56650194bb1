"""Diagonals, traces, products and kernels against Jacobians and Hessians by jax, in float64."""

import functools

import jax
import numpy as np
import optax
import optax.contrib
import pytest
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree

import funcbp
from funcbp import layers, predict, rules
from funcbp.curvature import (
    ggn_diagonal,
    ggn_trace,
    ggn_vector_product,
    hessian_diagonal_source,
    hessian_root,
    hessian_sample,
    hessian_vector_product,
    ntk,
)
from funcbp.verify._pairs import evaluated
from tests.per_example import (
    BATCH,
    CROSS_ENTROPY,
    EVALUATED,
    KEY,
    NETWORKS,
    WIDTH,
    assert_close,
    inputs,
    language_model,
)
from tests.support import drawn

ALL = NETWORKS | {"tied": (language_model(layers.activation("tanh")), "ids")}
EVERY_TIME = ("mlp", "repeat", "conv", "tied")
X = np.random.default_rng(3).standard_normal((BATCH, WIDTH))
Y = jnp.array([0, 2, 1, 2])
MLP = NETWORKS["mlp"][0]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def problem(name):
    network, kind = ALL[name]
    x, y = inputs(kind)
    params, state = jax.eval_shape(functools.partial(network.init, KEY), x)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: 0.5 * rng.standard_normal(p.shape), params)
    state = jax.tree.map(lambda s: np.ones(s.shape), state)
    outputs = functools.partial(predict(network), state=state)
    z = jax.eval_shape(outputs, params, x)
    labels = np.random.default_rng(2).integers(0, z.shape[-1], z.shape[:-1])
    y = jnp.asarray(labels) if y is None else y
    return network, outputs, params, x, y, state


def jacobian(outputs, params, x):
    """∂z/∂θ, `(*outputs, parameters)`, and the outputs."""
    flat, tree = ravel_pytree(params)
    return jax.jacrev(lambda v: outputs(tree(v), x))(flat), outputs(params, x), tree


def softmax_hessian(z):
    p = jax.nn.softmax(z)
    return jnp.einsum("...i,ij->...ij", p, jnp.eye(p.shape[-1])) - p[..., :, None] * p[..., None, :]


@pytest.mark.parametrize(
    "name", [n if n in EVERY_TIME else pytest.param(n, marks=pytest.mark.long) for n in ALL]
)
def test_every_layer_against_the_jacobian(name):
    network, outputs, params, x, y, state = problem(name)
    train = "evaluated" not in name

    @jax.jit
    def by_hand(params):
        diagonal = ggn_diagonal(network, CROSS_ENTROPY, train=train, at_once=4)(params, x, y, state=state)
        trace = ggn_trace(network, CROSS_ENTROPY, train=train)(params, x, y, state=state)
        return diagonal, trace, ntk(network, batch_size=2)(params, x, x[1:], state=state)

    def by_jax(params):
        j, z, tree = jacobian(outputs, params, x)
        classes, size = z.shape[-1], j.shape[-1]
        rows = j.reshape(-1, classes, size)
        h = softmax_hessian(z).reshape(-1, classes, classes)
        diagonal = jnp.einsum("nip,nij,njp->p", rows, h, rows) / rows.shape[0] * (rows.shape[0] // BATCH)
        each = j.reshape(BATCH, -1, size)
        kernel = jnp.einsum("ncp,mdp->nmcd", each, each[1:])
        return tree(diagonal), diagonal.sum(), kernel.reshape(*kernel.shape[:2], *z.shape[1:], *z.shape[1:])

    actual, expected = by_hand(params), evaluated(by_jax, params)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e)


@functools.cache
def small():
    """A network without positions; its Jacobian, and the Hessian of its loss with weights."""
    with jax.enable_x64(True):
        _, outputs, params, *_ = problem("mlp")
        weights = jnp.array([1.0, 0.5, 0.0, 2.0])

        def value(flat):
            z = outputs(tree(flat), X)
            return jnp.sum(weights * optax.losses.softmax_cross_entropy_with_integer_labels(z, Y))

        def by_jax(flat):
            return jax.jacrev(lambda v: outputs(tree(v), X))(flat), jax.hessian(value)(flat)

        flat, tree = ravel_pytree(params)
        j, hessian = evaluated(by_jax, flat)
        h = evaluated(lambda p: softmax_hessian(outputs(p, X)), params) * np.asarray(weights)[:, None, None]
        ggn = np.einsum("nip,nij,njq->pq", j, h, j)
        return params, tree, weights, j, np.asarray(ggn), np.asarray(hessian)


def test_weights_reductions_and_frozen_parameters():
    params, tree, weights, _, ggn, hessian = small()
    labels = Y.at[2].set(-1)
    v = tree(np.random.default_rng(5).standard_normal(ggn.shape[:1]))
    frozen = {"frozen": ("0",)}
    kept = ravel_pytree([jax.tree.map(jnp.zeros_like, params[0]), *jax.tree.map(jnp.ones_like, params[1:])])[
        0
    ]
    kept = np.asarray(kept)

    @jax.jit
    def by_hand(params):
        arrays = {"weights": weights}
        out = {}
        for name, options in (("sum", {"reduction": "sum"}), ("mean", frozen)):
            make = (ggn_diagonal, ggn_trace, ggn_vector_product, hessian_vector_product)
            diagonal, trace, product, hessian = (f(MLP, CROSS_ENTROPY, **options) for f in make)
            out[name] = (
                diagonal(params, X, labels, **arrays),
                trace(params, X, labels, **arrays),
                product(params, v, X, Y, **arrays),
                hessian(params, v, X, Y, **arrays),
            )
        return out

    found = by_hand(params)
    flat = ravel_pytree(v)[0]
    diagonal, trace, product, curved = found["sum"]
    assert_close(diagonal, tree(ggn.diagonal()))
    assert_close(trace, ggn.trace())
    assert_close(product, tree(ggn @ flat))
    assert_close(curved, tree(hessian @ flat))
    diagonal, trace, product, curved = found["mean"]
    total = weights.sum()
    assert_close(diagonal, tree(kept * ggn.diagonal() / total))
    assert_close(trace, (kept * ggn.diagonal()).sum() / total)
    assert_close(product, tree(kept * (ggn @ (kept * flat)) / total))
    assert_close(curved, tree(kept * (hessian @ (kept * flat)) / total))
    assert not diagonal[0]["w"].any()


def test_kinds_of_kernels():
    params, _, _, j, *_ = small()
    flat = np.asarray(j).reshape(BATCH, 3, -1)
    full = np.einsum("ncp,mdp->nmcd", flat, flat)

    @jax.jit
    def by_hand(params):
        two = jax.tree.map(lambda p: jnp.stack([p, 0 * p]), params)
        return [
            *(ntk(MLP, kind=kind)(params, X) for kind in ("full", "diagonal", "trace")),
            ntk(MLP, frozen=("2",), batch_size=3)(params, X),
            jax.vmap(ntk(MLP, kind="trace"), (0, None))(two, X),
            jax.vmap(ggn_diagonal(MLP, CROSS_ENTROPY), (0, None, None))(two, X, Y),
            ggn_diagonal(MLP, CROSS_ENTROPY)(params, X, Y),
        ]

    kernels = by_hand(params)
    assert_close(kernels[4][0], kernels[2])
    assert_close(jax.tree.map(lambda a: a[0], kernels[5]), kernels[6])
    assert_close(kernels[0], full)
    assert_close(kernels[1], np.einsum("nmcc->nmc", full))
    assert_close(kernels[2], np.einsum("nmcc->nm", full))
    first = params[0]["w"].size + params[0]["b"].size
    assert_close(kernels[3], np.einsum("ncp,mdp->nmcd", flat[..., :first], flat[..., :first]))


def test_sampled_targets_have_the_right_mean():
    params, _, weights, _, ggn, _ = small()
    diagonal = ggn_diagonal(MLP, CROSS_ENTROPY, samples=3000, reduction="sum", at_once=3000)
    found = jax.jit(diagonal)(params, X, Y, weights=weights, key=KEY)
    found, exact = ravel_pytree(found)[0], ggn.diagonal()
    assert np.linalg.norm(found - exact) < 0.06 * np.linalg.norm(exact)
    # One sample is far from it, and two in blocks are the mean of two.
    one = jax.jit(ggn_diagonal(MLP, CROSS_ENTROPY, samples=2, at_once=1))
    whole = jax.jit(ggn_diagonal(MLP, CROSS_ENTROPY, samples=2))
    assert_close(one(params, X, Y, key=KEY), whole(params, X, Y, key=KEY))


def uniform(z, y):
    """No loss of the catalogue."""
    return jnp.sum(jnp.square(z - y) ** 2, -1) + z[..., 0] * z[..., 1]


PAIR = (uniform, jax.vmap(jax.grad(uniform)))
SHARP = functools.partial(rules.softmax_cross_entropy_with_integer_labels, z_loss=0.1, label_smoothing=0.2)
LOSSES = {
    "l2": (rules.l2_loss, optax.losses.l2_loss, X),
    "squared": (rules.squared_error, optax.losses.squared_error, X),
    "binary": (
        rules.sigmoid_binary_cross_entropy,
        optax.losses.sigmoid_binary_cross_entropy,
        np.asarray(X > 0, np.float64),
    ),
    "labels": (CROSS_ENTROPY, optax.losses.softmax_cross_entropy_with_integer_labels, Y),
    "classes": (rules.softmax_cross_entropy, optax.losses.softmax_cross_entropy, np.exp(X)),
    "log_cosh": (rules.log_cosh, optax.losses.log_cosh, X),
    "options": (
        SHARP,
        lambda z, y: (
            optax.losses.softmax_cross_entropy(z, optax.losses.smooth_labels(jax.nn.one_hot(y, WIDTH), 0.2))
            + 0.1 * jax.nn.logsumexp(z, -1) ** 2
        ),
        Y,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_roots_and_samples_of_losses(name):
    loss, reference, y = LOSSES[name]
    z = np.random.default_rng(4).standard_normal((BATCH, WIDTH))
    elementwise = jax.eval_shape(reference, z, y).shape == z.shape
    count = 4000

    @jax.jit
    def everything(z, y):
        draw = hessian_sample(loss)
        s = jax.vmap(lambda key: draw(key, z, y))(jax.random.split(KEY, count))
        products = jnp.einsum("kni,knj->knij", s, s)
        return hessian_root(loss)(z, y), products.mean(0), products.std(0)

    each = evaluated(jax.vmap(jax.hessian(lambda z, y: jnp.sum(reference(z[None], y[None])))), z, y)
    root, mean, spread = everything(z, y)
    if elementwise:
        assert_close(np.square(root).sum(0), np.einsum("nii->ni", each), 1e-10)
    else:
        assert_close(np.einsum("cni,cnj->nij", root, root), each, 1e-10)
    assert (np.abs(mean - each) <= 5 * spread / np.sqrt(count) + 1e-9).all()


def test_a_root_is_what_the_user_says_it_is():
    params, *_ = small()
    own = {"root": lambda z, y: jnp.ones((1, *z.shape))}
    found = jax.jit(ggn_diagonal(MLP, PAIR, reduction="sum", **own))(params, X, X[:, :3])
    _, outputs, *_ = problem("mlp")
    j = evaluated(jax.jacrev(lambda p: outputs(p, X).sum(-1)), params)
    assert_close(found, jax.tree.map(lambda a: np.square(a).sum(0), j))
    wrong = ggn_diagonal(MLP, PAIR, root=lambda z, y: z)
    with pytest.raises(ValueError, match=r"`root` gives float64\[4, 3\]; with outputs .* \(columns, 4, 3\)"):
        wrong(params, X, X[:, :3])


def test_a_hessian_without_a_root_is_refused():
    """The loss z₀ z₁ + … is not convex: an error where values are known, NaN under jit, never a number."""
    network, params, y = layers.dense(3, bias=False), {"w": np.zeros((WIDTH, 3))}, np.zeros((BATCH, 3))
    diagonal = ggn_diagonal(network, PAIR)
    with pytest.raises(ValueError, match="the loss's Hessian has the negative eigenvalue"):
        diagonal(params, X, y)
    product = ggn_vector_product(network, PAIR)
    unknown, known = jax.jit(lambda p: (diagonal(p, X, y), product(p, p, X, y)))(params)
    assert np.isnan(unknown["w"]).any()
    assert np.isfinite(known["w"]).all()


def test_half_precision_and_dtypes():
    with jax.enable_x64(False):
        x = jnp.asarray(X, jnp.float32)
        params, _ = drawn(MLP, x)
        exact = jax.jit(ggn_diagonal(MLP, CROSS_ENTROPY))(params, x, Y)
        half = funcbp.Precision("bfloat16")
        rough = jax.jit(ggn_diagonal(MLP, CROSS_ENTROPY, precision=half))(params, x, Y)
        for a, b in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b, rtol=0, atol=0.05 * np.abs(b).max())
        kernel = jax.eval_shape(ntk(MLP, precision=half), params, x)
        assert kernel.dtype == jnp.float32


def test_sophia_takes_the_exact_diagonal():
    with jax.enable_x64(False):
        x, y = jnp.asarray(X, jnp.float32), Y
        params, _ = drawn(MLP, x)
        source = hessian_diagonal_source(MLP, CROSS_ENTROPY, samples=None)
        optimizer = optax.contrib.sophia(0.03, hessian_diagonal_fn=source, update_interval=2)
        sweep = funcbp.value_and_grad(MLP, CROSS_ENTROPY)

        @jax.jit
        def step(params, state):
            value, grads = sweep(params, x, y)
            updates, state = optimizer.update(grads, state, params, batch=(x, y))
            return optax.apply_updates(params, updates), state, value

        state, values = optimizer.init(params), []
        for _ in range(30):
            params, state, value = step(params, state)
            values.append(float(value))
        assert values[-1] < 0.2 * values[0]
        with pytest.raises(ValueError, match=r"`update` needs `params`, and `batch=\(x, y\)`"):
            source.update(params, source.init(params), params)


def test_what_does_not_fit_is_refused():
    params, *_ = small()
    with pytest.raises(ValueError, match="with samples=1 targets are drawn; give `key="):
        ggn_diagonal(MLP, CROSS_ENTROPY, samples=1)(params, X, Y)
    with pytest.raises(ValueError, match=r"`samples` must be a whole number from 1 on, got int.*\[\]"):
        ggn_diagonal(MLP, CROSS_ENTROPY, samples=0)
    with pytest.raises(ValueError, match="`kind` must be one of 'full', 'diagonal', 'trace', got 'sum'"):
        ntk(MLP, kind="sum")
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        ntk(MLP, batch_size=0)
    with pytest.raises(ValueError, match="there are no parameters"):
        ntk(layers.activation("tanh"))((), X)
    wrong = (*params[:2], {**params[2], "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"`v` is float64\[2\] at `2.b`, which is float64\[3\]"):
        ggn_vector_product(MLP, CROSS_ENTROPY)(params, wrong, X, Y)
    bn, state = EVALUATED.init(KEY, X)
    for f in (ggn_diagonal(EVALUATED, CROSS_ENTROPY), ggn_trace(EVALUATED, CROSS_ENTROPY)):
        with pytest.raises(ValueError, match="batch_norm: examples must be independent here"):
            f(bn, X, Y, state=state)


@pytest.mark.long
def test_columns_take_no_more_memory_than_their_deltas():
    """Neither a gradient of every column nor the activations once more for each."""
    with jax.enable_x64(False):
        parts = [part for w in (512, 512) for part in (layers.dense(w), layers.activation("relu"))]
        network, x = layers.chain(*parts, layers.dense(10)), jnp.ones((64, 784))
        params = jax.eval_shape(lambda x: network.init(KEY, x)[0], x)
        labels = jnp.zeros(64, int)
        programs = (
            jax.jit(ggn_diagonal(network, CROSS_ENTROPY)).lower(params, x, labels),
            jax.jit(ntk(network)).lower(params, x[:32]),
        )
        deltas = 4 * 64 * 10 * (512 + 512 + 10)
        for program in programs:
            assert program.compile().memory_analysis().temp_size_in_bytes < 1.5 * deltas
