"""DP-SGD: clipping, noise, sensitivity, adaptive bounds, and the step around them."""

import functools
import math

import chex
import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, assert_trees_equal, drawn

KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels
BATCH, INPUTS, CLASSES = 6, 3, 4
NETWORK = layers.chain(
    layers.repeat(layers.residual(layers.dense(INPUTS)), 2), layers.activation("tanh"), layers.dense(CLASSES)
)
LABELS = jnp.arange(BATCH) % CLASSES
COMMON = {"noise_multiplier": 0.7, "expected_batch_size": 8.0}
GROUPS = {"": 0.3, "0": 0.2, "2.w": 0.1}
FORMS = {
    "network": ({"max_norm": 0.4}, 0.4),
    "layer": ({"max_norm": 0.4, "per": "layer"}, 0.4),
    "parameter": ({"max_norm": 0.4, "per": "parameter"}, 0.4),
    "groups": ({"max_norm": GROUPS}, math.sqrt(0.14)),
    "automatic": ({"coefficients": funcbp.automatic_clipping(), "sensitivity": 1.0}, 1.0),
    "adaptive": ({"max_norm": training.AdaptiveClipping(0.4)}, 0.4),
}


def plain_loss(params, x, y):
    """Of one example."""
    for w, b in zip(params[0]["w"], params[0]["b"], strict=True):
        x = x + x @ w + b
    logits = jnp.tanh(x) @ params[2]["w"] + params[2]["b"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)


def data(dtype="float32"):
    params, state = drawn(NETWORK, jax.ShapeDtypeStruct((BATCH, INPUTS), dtype))
    x = np.random.default_rng(1).standard_normal((BATCH, INPUTS))
    return params, state, jnp.asarray(x, dtype)


@functools.cache
def private(form, **options):
    """A step whose update is minus what the optimizer was given."""
    options = COMMON | FORMS[form][0] | options
    return training.make_private_step(NETWORK, LOSS, optax.sgd(1.0), **options)


def given_to_optimizer(form, params, x, weights, y=LABELS, **options):
    init, step = private(form, **options)
    result = step(params, (), init(params, jax.random.key(7)), x, y, weights=weights)
    return jax.tree.map(lambda p, q: np.asarray(p) - q, params, result.params), result


def clipped_by_hand(form, each):
    """Σ c_n g_n from the gradients of the examples, by the definition of every form."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(each)
    paths = [".".join(str(getattr(k, "idx", getattr(k, "key", k))) for k in path) for path, _ in flat]
    leaves = [np.asarray(g) for _, g in flat]

    def norm(some):
        return np.sqrt(sum((leaves[i].reshape(BATCH, -1) ** 2).sum(1) for i in some))

    everything = range(len(paths))
    if form in ("network", "adaptive"):
        c = [np.minimum(1, 0.4 / norm(everything))] * len(paths)
    elif form == "automatic":
        c = [1 / (norm(everything) + 0.01)] * len(paths)
    elif form == "groups":
        of = [max((g for g in GROUPS if p.startswith(g)), key=len) for p in paths]
        c = [np.minimum(1, GROUPS[g] / norm([i for i in everything if of[i] == g])) for g in of]
    else:
        name = [p.rpartition(".")[0] if form == "layer" else p for p in paths]
        count = {"layer": 3, "parameter": 6}[form]
        c = []
        for group in name:
            members = [i for i in everything if name[i] == group]
            if group.startswith("0"):
                squares = sum((leaves[i].reshape(BATCH, 2, -1) ** 2).sum(2) for i in members)
            else:
                squares = norm(members) ** 2
            c.append(np.minimum(1, 0.4 / np.sqrt(count) / np.sqrt(squares)))
    sums = [
        (g * b.reshape(*b.shape, *(1,) * (g.ndim - b.ndim))).sum(0) for g, b in zip(leaves, c, strict=True)
    ]
    return treedef.unflatten(sums)


@functools.cache
def _normals(*specs):
    @jax.jit
    def drawn():
        noise_key = jax.random.split(jax.random.fold_in(jax.random.key(7), 0), 3)[1]
        return [jax.random.normal(jax.random.fold_in(noise_key, i), *spec) for i, spec in enumerate(specs)]

    return drawn()


def noise_by_hand(params, std):
    """The documented keys: one for every step, of it one for the noise, of it one for every parameter."""
    leaves, treedef = jax.tree.flatten(params)
    draws = _normals(*[(p.shape, p.dtype) for p in leaves])
    return treedef.unflatten([std * np.asarray(z) for z in draws])


@functools.cache
def gradients_of_examples():
    with jax.enable_x64(True):
        params, _, x = data("float64")
        weights = np.array([1.0, 0.0, 2.0, 1.0, 0.0, 30.0])
        each = evaluated(jax.vmap(jax.grad(plain_loss), (None, 0, 0)), params, x, LABELS)
        each = jax.tree.map(lambda g: g * weights.reshape(BATCH, *(1,) * (g.ndim - 1)), each)
        return params, x, weights, each


@pytest.mark.parametrize("form", FORMS)
def test_the_optimizer_gets_the_clipped_sum_with_noise_over_the_expected_size(x64, form):
    params, x, weights, each = gradients_of_examples()
    actual, result = given_to_optimizer(form, params, x, weights)
    multiplier = 0.7
    if form == "adaptive":
        multiplier = (0.7**-2 - (2 * 8 / 20) ** -2) ** -0.5
    std = multiplier * np.float32(0.4) if form == "adaptive" else multiplier * FORMS[form][1]
    with np.errstate(divide="ignore"):
        sums = clipped_by_hand(form, each)
    expected = jax.tree.map(lambda s, z: (s + z) / 8, sums, noise_by_hand(params, std))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-8 if form == "adaptive" else 1e-12)
    np.testing.assert_allclose(result.metrics["noise"], std / 8, rtol=1e-6)
    assert int(result.opt_state.count) == 1


def moved(form, params, x, y=LABELS):
    """By how much the first example moves the sum, in every parameter: the noise is the same and cancels."""
    with_it, result = given_to_optimizer(form, params, x, np.ones(BATCH), y)
    without, _ = given_to_optimizer(form, params, x, np.sign(np.arange(BATCH) * 1.0), y)
    return [
        8 * (np.asarray(a) - b) for a, b in zip(*map(jax.tree.leaves, (with_it, without)), strict=True)
    ], result


@pytest.mark.parametrize("form", FORMS)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4, 1e150, 1e200]),
    spread=st.sampled_from([0.0, 0.3, 3.0]),
    bad=st.sampled_from([None, None, np.nan, np.inf, 1e308]),
)
def test_one_example_moves_the_sum_by_no_more_than_the_sensitivity(form, seed, scale, spread, bad):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: spread * rng.standard_normal(p.shape), data("float64")[0])
        x = rng.standard_normal((BATCH, INPUTS))
        x[0] *= scale
        if bad is not None:
            x[0, rng.integers(INPUTS)] = bad
        difference, result = moved(form, params, x, rng.integers(0, CLASSES, BATCH, LABELS.dtype))
    length = math.sqrt(sum(np.square(d).sum() for d in difference))
    # An AdaptiveClipping keeps its bound in float32.
    assert length <= FORMS[form][1] * (1 + 1e-7) + 1e-12
    lost = [not np.isfinite(n[0]).all() for n in jax.tree.leaves(result.metrics["norms"])]
    assert (length <= 1e-12) if any(lost) else True
    assert length > 0 or any(lost) or scale == 0 or spread == 0 or bad or scale > 100


def _replaced(array, where, value):
    array = np.array(array)
    array[where] = value
    return array


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
@pytest.mark.parametrize("form", FORMS)
def test_an_example_that_is_not_finite_adds_nothing(x64, form, bad):
    params, x, *_ = gradients_of_examples()
    difference, result = moved(form, params, _replaced(x, (0, 0), bad))
    coefficients = jax.tree.leaves(result.metrics["coefficients"])
    if all((c[0] == 0).all() for c in coefficients):
        assert max(np.abs(d).max() for d in difference) < 1e-14
    # 1e308 may leave a gradient that is finite, or 0: tanh is flat there.
    assert bad == 1e308 or all((c[0] == 0).all() for c in coefficients)
    assert all(np.isfinite(d).all() for d in difference)


def test_an_infinite_loss_weight_adds_nothing(x64):
    params, x, *_ = gradients_of_examples()
    ones = np.ones(BATCH)
    without, _ = given_to_optimizer("layer", params, x, _replaced(ones, 1, 0))
    assert_trees_close(given_to_optimizer("layer", params, x, _replaced(ones, 1, np.inf))[0], without)


def test_an_empty_batch_makes_a_step_of_noise(x64):
    params, x, *_ = gradients_of_examples()
    actual, result = given_to_optimizer("network", params, x, np.zeros(BATCH))
    expected = jax.tree.map(lambda z: z / 8, noise_by_hand(params, 0.7 * 0.4))
    assert_trees_close(actual, expected)
    assert float(result.metrics["value"]) == 0


def test_frozen_parameters_get_no_noise_and_dtypes_stay():
    params, _, x = data("bfloat16")
    init, step = training.make_private_step(
        NETWORK, LOSS, optax.adamw(0.1, weight_decay=0.5), max_norm=0.1, frozen=("0.w", "2.b"), **COMMON
    )
    result = step(params, (), init(params, KEY), x, LABELS)
    assert_trees_equal((result.params[0]["w"], result.params[2]["b"]), (params[0]["w"], params[2]["b"]))
    assert not np.array_equal(result.params[2]["w"], params[2]["w"])
    assert {p.dtype.name for p in jax.tree.leaves(result.params)} == {"bfloat16"}
    assert result.metrics["norms"].dtype == jnp.float32


def test_noise_has_its_deviation_in_every_parameter_and_no_correlation():
    network = layers.chain(layers.dense(300), layers.dense(20))
    params, _ = drawn(network, jax.ShapeDtypeStruct((1, 100), "float32"))
    zeros = jax.tree.map(np.zeros_like, params)
    noise = training.add_noise(1.5, 2.0, KEY, expected_batch_size=4, frozen=("1.b",))
    state = noise.init(params)
    update = jax.jit(noise.update)
    first, state = update(zeros, state)
    second, _ = update(zeros, state, params, value=1.0)
    first, second = jax.tree.map(np.asarray, (first, second))
    assert (first[1]["b"] == 0).all()
    for draw in (first, second):
        for leaf in (draw[0]["w"], draw[0]["b"], draw[1]["w"]):
            n = leaf.size
            # 5 standard deviations of the estimate each.
            assert abs(float(leaf.std()) / 0.75 - 1) < 5 / math.sqrt(2 * n)
            assert abs(float(leaf.mean())) < 5 * 0.75 / math.sqrt(n)
    pairs = [
        (first[0]["w"].ravel()[:6000], first[1]["w"].ravel()),
        (first[0]["w"][0], first[0]["b"]),
        (first[1]["w"], second[1]["w"]),
    ]
    for a, b in pairs:
        correlation = np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(a.size)


def test_noise_is_added_before_the_sum_is_rounded():
    sums = {"w": jnp.full(4000, 256.0, jnp.bfloat16)}
    noise = training.add_noise(1.0, 0.5, KEY)
    noised, _ = noise.update(sums, noise.init(sums))
    assert noised["w"].dtype == jnp.bfloat16
    # Near 256 bfloat16 numbers are 1 or 2 apart: noise that was rounded first would have moved none.
    assert set(np.unique(np.float32(noised["w"]))) >= {255.0, 256.0}
    assert abs(float(jnp.mean(noised["w"].astype("float32"))) - 256) < 0.2


def test_the_transformation_makes_the_same_of_a_clipped_sum(x64):
    params, x, *_ = gradients_of_examples()
    noise = training.add_noise(0.0, 0.4, KEY, expected_batch_size=8)
    sums = jax.jit(funcbp.clipped_grad(NETWORK, LOSS, max_norm=0.4))(params, x, LABELS).grads
    optimizer = optax.chain(noise, optax.sgd(1.0))
    updates, _ = optimizer.update(sums, optimizer.init(params), params)
    actual, _ = given_to_optimizer("network", params, x, None)
    quiet = jax.tree.map(lambda g, z: g - z / 8, actual, noise_by_hand(params, 0.7 * 0.4))
    assert_trees_close(jax.tree.map(jnp.negative, updates), quiet, ulps=2**12)


def test_microbatches_add_up_to_the_batch(x64):
    params, x, weights, _ = gradients_of_examples()
    whole, result = given_to_optimizer("groups", params, x, weights)
    parted, of_parts = given_to_optimizer("groups", params, x, weights, microbatches=3)
    assert_trees_close(parted, whole, ulps=512)
    assert_trees_close(of_parts.metrics["norms"], result.metrics["norms"])


def test_compiles_once_for_all_sizes_and_goes_on_from_a_checkpoint(tmp_path):
    """With donated buffers, dropout, and a bound that adapts: the same bits after the resumption."""
    x = np.random.default_rng(0).standard_normal((40, INPUTS)).astype("float32")
    y = np.arange(40) % CLASSES
    traces = []
    plain = layers.dropout(0.5)
    counting = plain._replace(fwd=lambda *args: traces.append(1) or plain.fwd(*args))
    network = layers.chain(layers.dense(CLASSES), counting)
    options = COMMON | {"max_norm": training.AdaptiveClipping(0.1), "donate": True}
    init, step = training.make_private_step(network, LOSS, optax.adam(1e-2), **options)
    traces.clear()
    sizes = set()

    def go_on(run, count):
        batches = training.poisson_batches(jax.random.key(3), 40, 0.2, start=int(run[2].count))
        for _ in range(count):
            batch = next(batches)
            sizes.add(int(batch.size))
            before = run
            some = np.asarray(batch.indices)
            run = step(*run, x[some], y[some], weights=batch.weights)[:3]
            assert before[0][0]["w"].is_deleted()
        return run

    def start():
        params, state = drawn(network, x)
        traces.clear()
        return params, state, init(params, KEY)

    run = go_on(start(), 2)
    path = tmp_path / "run.npz"
    training.save_checkpoint(path, run)
    resumed = training.load_checkpoint(path, like=run)
    run = go_on(run, 3)
    assert len(traces) == 1
    assert len(sizes) > 1
    assert int(run[2].count) == 5
    assert_trees_equal(jax.tree.map(_bits, go_on(resumed, 3)), jax.tree.map(_bits, run))
    # The caller's key is still there.
    jax.random.key_data(KEY)


def _bits(a):
    return jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a


def test_an_adaptive_bound_finds_the_quantile():
    """With the network standing still the bound goes to the median of the norms."""
    x = np.random.default_rng(0).standard_normal((200, INPUTS)).astype("float32")
    y = np.arange(200) % CLASSES
    clipping = training.AdaptiveClipping(initial=50.0, quantile=0.5, learning_rate=0.3)
    init, step = training.make_private_step(
        NETWORK, LOSS, optax.sgd(0.0), max_norm=clipping, noise_multiplier=1.0, expected_batch_size=100.0
    )
    params, state = drawn(NETWORK, x)
    weights = np.float32(np.arange(200) < 100)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(opt_state):
        def body(opt_state, _):
            result = step(params, state, opt_state, x, y, weights=weights)
            return result.opt_state, (result.metrics["max_norm"], result.metrics["norms"])

        return jax.lax.scan(body, opt_state, length=80)

    opt_state, (bounds, norms) = run(init(params, KEY))
    median = np.median(norms[0, :100])
    assert bounds[0] == 50.0
    assert abs(np.log(np.mean(bounds[-40:]) / median)) < 0.1
    run(opt_state)
    assert int(opt_state.count) == 80


def test_the_split_of_the_noise_adds_up():
    clipping = training.AdaptiveClipping(count_noise=3.0)
    z = clipping.gradient_multiplier(2.0, 100)
    # Two Gaussian mechanisms are one, with the squares of sensitivity over deviation added.
    assert math.isclose(1 / z**2 + (0.5 / 3.0) ** 2, 1 / 2.0**2)
    assert clipping.gradient_multiplier(0.0, 100) == 0
    assert training.AdaptiveClipping().count_std(100) == 5
    with pytest.raises(ValueError, match="leaves nothing of the noise multiplier 6"):
        clipping.gradient_multiplier(6.0, 100)
