"""Kronecker factors against the exact Gauss-Newton blocks where they equal these, and the optimizer."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from funcbp.curvature import Basis, kronecker_curvature
from tests.per_example import assert_close

KEY = jax.random.key(0)
LABELS = rules.softmax_cross_entropy_with_integer_labels
RNG = np.random.default_rng(0)
X, TARGETS = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 2))
IMAGES = RNG.standard_normal((6, 3, 4))
DEEP = layers.chain(layers.dense(3), layers.dense(5), layers.dense(2))
CURVED = layers.chain(layers.dense(3), layers.activation("tanh"), layers.dense(3))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def parameters(network, x):
    specs = jax.eval_shape(lambda x: network.init(KEY, x)[0], x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: 0.5 * rng.standard_normal(p.shape), specs)


def blocks(network, loss, hessian, x, y, *forms):
    """Of each dense layer's weight, with its bias: A ⊗ G in these forms, and the Gauss-Newton block."""
    outputs = funcbp.predict(network)

    @jax.jit
    def both(params):
        found = [
            kronecker_curvature(network, loss, samples=None, form=form)(params, x, y).curvature
            for form in forms
        ]
        z = outputs(params, x)
        jacobian = jax.jacrev(lambda p: outputs(p, x))(params)
        h = hessian(z.reshape(-1, z.shape[-1])) / x.shape[0]
        return [[jnp.kron(c["w"].rows, c["w"].columns) for c in one if c] for one in found], [
            _block(layer, h) for layer in jacobian if layer
        ]

    return both(parameters(network, x))


def _block(jacobian, h):
    both = jnp.concatenate([jacobian["w"], jacobian["b"][..., None, :]], -2)
    rows = both.reshape(*h.shape[:2], -1)
    return jnp.einsum("nip,nij,njq->pq", rows, h, rows)


def assert_far(actual, expected):
    assert np.abs(actual - expected).max() > 0.01 * np.abs(expected).max()


def softmax_hessian(z):
    p = jax.nn.softmax(z)
    return jnp.einsum("ni,ij->nij", p, jnp.eye(p.shape[-1])) - p[:, :, None] * p[:, None, :]


def identity(z):
    return jnp.broadcast_to(jnp.eye(z.shape[-1]), (*z.shape, z.shape[-1]))


def test_a_single_example_has_exact_blocks():
    (found,), exact = blocks(CURVED, LABELS, softmax_hessian, X[:1], jnp.array([2]), "expand")
    assert_close(found, exact)
    (found,), exact = blocks(CURVED, LABELS, softmax_hessian, X, jnp.zeros(6, int), "expand")
    assert_far(found[0], exact[0])


def test_a_deep_linear_network_under_squared_error_has_exact_blocks():
    """Bernacchia et al. 2018; with positions whose losses are added, in the form "expand"."""
    (found,), exact = blocks(DEEP, rules.l2_loss, identity, X, TARGETS, "expand")
    assert_close(found, exact)
    targets = jnp.zeros((6, 3, 2))
    (expand, reduce), exact = blocks(DEEP, rules.l2_loss, identity, IMAGES, targets, "expand", "reduce")
    assert_close(expand, exact)
    assert_far(reduce[0], exact[0])


def test_the_reduce_form_is_exact_for_a_mean_over_positions():
    """Eschenhagen et al. 2023: deep linear, squared error of the mean."""
    network = layers.chain(layers.dense(3), layers.dense(2), layers.global_avg_pool())
    (reduce, expand), exact = blocks(network, rules.l2_loss, identity, IMAGES, TARGETS, "reduce", "expand")
    assert_close(reduce, exact)
    assert_far(expand[0], exact[0])


def test_gradient_value_and_what_is_no_weight():
    """Frozen, biased and stacked layers, gains and a convolution in one network."""
    network = layers.chain(
        layers.conv(3, 2, bias=False),
        layers.layer_norm(),
        layers.repeat(layers.residual(layers.dense(3)), 2),
        layers.global_avg_pool(),
        layers.dense(3),
    )
    x, y = jnp.asarray(RNG.standard_normal((4, 3, 3, 2))), jnp.array([0, 1, 2, 1])
    params = parameters(network, x)
    options = {"reduction": "sum", "frozen": ("4.b",)}

    @jax.jit
    def both(params):
        sweep = funcbp.backprop(network, LABELS, **options)(params, x, y)
        return (
            kronecker_curvature(network, LABELS, samples=None, **options)(params, x, y),
            (sweep.value, sweep.grads),
            funcbp.curvature.ggn_diagonal(network, LABELS, **options)(params, x, y),
        )

    found, expected, diagonal = both(params)
    assert_close((found.value, found.grads), expected)
    conv, norm, stack, _, out = found.curvature
    assert conv["w"].rows.shape == (8, 8)
    assert_close((norm["gain"].moment, norm["bias"].moment), (diagonal[1]["gain"], diagonal[1]["bias"]))
    assert stack["w"].rows.shape == (2, 4, 4)
    assert stack["w"].columns.shape == (2, 3, 3)
    assert out["w"].rows.shape == (3, 3)
    assert jax.tree.leaves((stack["b"], out["b"])) == []


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_the_update_is_the_damped_inverse_times_the_gradient(kind):
    params, y = parameters(CURVED, X), jnp.zeros(6, int)
    sweep = kronecker_curvature(CURVED, LABELS, samples=None)
    epsilon, decay = 0.03, 0.5

    @jax.jit
    def two_updates(params):
        like = jax.eval_shape(sweep, params, X, y).curvature
        scale = training.scale_by_kfac(like, damping=epsilon, decay=decay, every=2, kind=kind)
        state = scale.init(params)
        first = sweep(params, X, y, bases=state.basis)
        one, state = scale.update(first.grads, state, params, curvature=first.curvature)
        again = sweep(params, X, y, bases=state.basis)
        two, _ = scale.update(first.grads, state, params, curvature=again.curvature)
        return first, one, two, state, again

    first, one, two, state, again = two_updates(params)
    c = first.curvature[0]["w"]
    g = np.concatenate([first.grads[0]["w"], first.grads[0]["b"][None]])
    a, b = np.asarray(c.rows), np.asarray(c.columns)
    if kind == "kfac":
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(b) / len(b)))
        root = np.sqrt(epsilon)
        expected = np.linalg.solve(a + pi * root * np.eye(len(a)), g) @ np.linalg.inv(
            b + root / pi * np.eye(len(b))
        )
        assert_close(two[0], one[0])
    else:
        flat = np.linalg.solve(np.kron(a, b) + epsilon * np.eye(a.size // len(a) * len(b)), g.ravel())
        expected = flat.reshape(g.shape)
        basis = state.basis[0]["w"]
        start = np.einsum("ia,ij,ja->a", basis.rows, a, basis.rows)[:, None] * np.einsum(
            "ia,ij,ja->a", basis.columns, b, basis.columns
        )
        moment = decay * start + (1 - decay) * again.curvature[0]["w"].moment
        u, v = basis
        later = u @ ((u.T @ g @ v) / (moment + epsilon)) @ v.T
        assert_close(np.concatenate([two[0]["w"], two[0]["b"][None]]), later)
    assert_close(np.concatenate([one[0]["w"], one[0]["b"][None]]), expected)


def test_moments_in_a_basis_are_those_of_single_examples():
    params, y = parameters(CURVED, X), jnp.zeros(6, int)
    u, v = (np.linalg.qr(RNG.standard_normal((n, n)))[0] for n in (5, 3))
    none = {"w": None, "b": None}
    bases = ({"w": Basis(u, v), "b": None}, (), none)

    @jax.jit
    def everything(params):
        sweep = kronecker_curvature(CURVED, LABELS, samples=None, reduction="sum")
        outputs = funcbp.predict(CURVED)
        return (
            sweep(params, X, y, bases=bases).curvature[0]["w"].moment,
            jax.jacrev(lambda p: outputs(p, X))(params)[0],
            outputs(params, X),
        )

    moment, jacobian, z = everything(params)
    both = np.concatenate([jacobian["w"], jacobian["b"][..., None, :]], -2)
    rotated = np.einsum("ncij,ia,jb->ncab", both, u, v)
    expected = np.einsum("ncab,ncd,ndab->ab", rotated, softmax_hessian(z), rotated)
    assert_close(moment, expected)


@pytest.mark.parametrize("kind", ["kfac", pytest.param("ekfac", marks=pytest.mark.long)])
def test_training_with_sampled_targets(kind):
    """Fewer steps than plain descent at any rate; nothing compiled twice; frozen parameters stay."""
    with jax.enable_x64(False):
        scale = jnp.array([10.0, 1.0, 0.1, 0.01])
        x = jax.random.normal(KEY, (64, 4)) * scale
        y = jnp.argmax(x @ jax.random.normal(jax.random.key(1), (4, 3)) / scale.mean(), -1)
        network = layers.chain(layers.dense(8), layers.activation("tanh"), layers.dense(3))
        params, state = network.init(KEY, x)
        make = functools.partial(training.make_kfac_step, network, LABELS)
        kfac = make(optax.sgd(0.5), damping=1e-2, every=2, kind=kind, frozen=("0.b",))
        opt_state, start = kfac.init(params, x, y), params
        values = []
        for i in range(12):
            key = jax.random.fold_in(KEY, i)
            params, state, opt_state, metrics = kfac.step(params, state, opt_state, x, y, key)
            values.append(float(metrics["value"]))
        assert kfac.step._cache_size() == 1
        assert values[-1] < 0.25 * values[0]
        np.testing.assert_array_equal(params[0]["b"], start[0]["b"])


def test_steps_between_measurements_take_what_is_known():
    params, y = parameters(DEEP, X), TARGETS
    make = functools.partial(training.make_kfac_step, DEEP, rules.l2_loss, optax.sgd(0.1))
    kfac = make(damping=0.03, every=4, curvature_every=2, samples=None)
    params, state, opt_state, _ = kfac.step(params, (), kfac.init(params, X, y), X, y)
    grads = jax.jit(funcbp.value_and_grad(DEEP, rules.l2_loss))(params, X, y)[1]
    after, _, later, metrics = kfac.step(params, state, opt_state, X, y)
    assert_close(metrics["gradient_norm"], optax.tree.norm(grads))
    assert_close(later[0].average, opt_state[0].average)
    for layer, gradient, known, new in zip(params, grads, opt_state[0].scale, after, strict=True):
        update = known["w"].rows @ np.concatenate([gradient["w"], gradient["b"][None]]) @ known["w"].columns
        assert_close(new["w"], layer["w"] - 0.1 * update[:-1])
        assert_close(new["b"], layer["b"] - 0.1 * update[-1])
    *_, third, _ = kfac.step(after, state, later, X, y)
    assert (third[0].count, third[0].measured) == (3, 2)


def test_damping_below_rounding_gives_no_nan():
    with jax.enable_x64(False):
        network, x = layers.dense(3), jnp.ones((4, 5))
        params, _ = network.init(KEY, x)
        kfac = training.make_kfac_step(network, LABELS, optax.sgd(1.0), damping=1e-30)
        params, *_ = kfac.step(params, (), kfac.init(params, x, jnp.arange(4) % 3), x, jnp.arange(4) % 3, KEY)
        assert all(jnp.isfinite(p).all() for p in params.values())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`kind` must be 'kfac' or 'ekfac', got 'shampoo'"):
        training.scale_by_kfac(None, kind="shampoo")
    with pytest.raises(ValueError, match="`every` must be at least 2, for its moments"):
        training.scale_by_kfac(None, kind="ekfac", every=1)
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\), got 1"):
        training.scale_by_kfac(None, decay=1)
    with pytest.raises(ValueError, match="`form` must be 'expand' or 'reduce', got 'mean'"):
        kronecker_curvature(CURVED, LABELS, form="mean")
    with pytest.raises(ValueError, match=r"`curvature_every` must divide `every`, 10, .* got 3"):
        training.make_kfac_step(CURVED, LABELS, optax.sgd(0.1), curvature_every=3)
    with pytest.raises(TypeError, match="`optimizer` must be of optax"):
        training.make_kfac_step(CURVED, LABELS, 0.1)
    params = parameters(CURVED, X)
    scale = training.scale_by_kfac(
        jax.eval_shape(
            kronecker_curvature(CURVED, LABELS, samples=None), params, X, jnp.zeros(6, int)
        ).curvature
    )
    with pytest.raises(ValueError, match="`update` needs `curvature=`"):
        scale.update(params, scale.init(params), params)
