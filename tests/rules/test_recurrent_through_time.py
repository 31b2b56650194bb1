"""Networks through time: against cells and flax's conventions, truncation, work in the loop, wrong backward
passes."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp import factors, rules
from scripts.bench_measure import matmul_flops
from tests.at_once import at_once
from tests.support import assert_trees_close

NAMES = ["elman", "gru", "lstm"]
GATES = {"elman": 1, "gru": 3, "lstm": 4}


def arguments(name, time=6, batch=(2,), width=3, features=4):
    gates = GATES[name] * features
    states = [(*batch, features)] * (2 if name == "lstm" else 1)
    biases = [(gates,)] * (2 if name == "gru" else 1)
    shapes = [(*batch, time, width), *states, (width, gates), (features, gates), *biases]
    rng = np.random.default_rng(0)
    return [jnp.asarray(0.5 * rng.standard_normal(shape), "float32") for shape in shapes]


def pullback_of(function, args, out_ct=None):
    def pulled(*args):
        out, pull = jax.vjp(function, *args)
        return pull(jax.tree.map(jnp.cos, out) if out_ct is None else out_ct)

    return at_once(pulled)(*args)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_is_the_derivative_with_the_state_held_constant(name):
    """What `jax.lax.stop_gradient` on the state before every k-th step gives; not the gradient."""
    rule, args = getattr(rules, name), arguments(name)
    tangents = tuple(jnp.sin(a) for a in args)

    def both(function, truncate):
        def back(*args):
            out, pull = jax.vjp(lambda *a: function(*a, truncate=truncate), *args)
            return pull(jax.tree.map(jnp.cos, out))

        def forward(function):
            return lambda *args: jax.jvp(lambda *a: function(*a, truncate=truncate), args, tangents)

        return at_once(lambda *a: (back(*a), forward(getattr(function, "primal", function))(*a)))(*args)

    found, full = both(rule, 2), both(rule.reference, None)
    assert_trees_close(found, both(rule.reference, 2))
    u = 2 + (name == "lstm")
    assert not np.allclose(found[0][1 + u], full[0][1 + u], rtol=1e-2)
    assert_trees_close(both(rule, 6), full)  # longer than time: nothing is cut


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_its_cell_step_after_step(name):
    rule, cell, args = getattr(rules, name), getattr(rules, f"{name}_cell"), arguments(name)
    states = 2 if name == "lstm" else 1
    state, every = args[1 : 1 + states], []
    for t in range(6):
        new = at_once(cell)(args[0][:, t], *state, *args[1 + states :])
        state = list(new) if states == 2 else [new]
        every.append(state[0])
    found = at_once(rule)(*args)
    np.testing.assert_allclose(found[0], np.stack(every, axis=1), rtol=1e-5)
    for last, expected in zip(found[1:], state, strict=True):
        np.testing.assert_allclose(last, expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_does_not_matter_and_gets_nothing(name):
    rule, args = getattr(rules, name), arguments(name)
    mask = jnp.ones((2, 6), bool).at[1, 3:].set(False)
    every, *last = at_once(rule)(*args, mask=mask)
    np.testing.assert_array_equal(every[1, 3:], np.broadcast_to(every[1, 2], (3, 4)))
    short = at_once(rule)(args[0][:, :3], *args[1:])
    for a, b in zip(last, short[1:], strict=True):
        np.testing.assert_allclose(a[1], b[1], rtol=1e-6)
    x_ct = pullback_of(lambda *a: rule(*a, mask=mask), args)[0]
    assert not np.any(x_ct[1, 3:])
    assert np.all(x_ct[0])


@pytest.mark.parametrize("name", NAMES)
def test_no_time_at_all_gives_the_initial_state_back(name):
    rule, args = getattr(rules, name), arguments(name, time=0)
    every, *last = at_once(rule)(*args)
    assert every.shape == (2, 0, 4)
    cotangents = pullback_of(rule, args)
    for i, out in enumerate(last, 1):
        np.testing.assert_array_equal(out, args[i])
        np.testing.assert_array_equal(cotangents[i], jnp.cos(out))
    assert not any(np.any(ct) for ct in cotangents[1 + len(last) :])


def products_in_loops(jaxpr):
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            body = equation.params["jaxpr"].jaxpr
            found += [e.outvars[0].aval.shape for e in body.eqns if e.primitive.name == "dot_general"]
            found += products_in_loops(body)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_back_carries_deltas_only(name):
    """One product with U a step; the products with x, and those that give W̄ and Ū, are outside."""
    rule, args = getattr(rules, name), arguments(name, time=5, batch=(7,), width=3, features=4)
    out, residuals = rule.fwd(*args)
    forward = jax.make_jaxpr(rule.fwd)(*args).jaxpr
    assert products_in_loops(forward) == [(7, GATES[name] * 4)]
    backward = jax.make_jaxpr(rule.bwd)(residuals, out).jaxpr
    assert products_in_loops(backward) == [(7, 4)]

    def by_autodiff(*args):
        return jax.vjp(rule.reference, *args)[1](out)

    def by_hand(*args):
        return rule.bwd(rule.fwd(*args)[1], out)

    assert matmul_flops(by_hand, *args) <= matmul_flops(by_autodiff, *args)


@pytest.mark.parametrize("name", NAMES)
def test_weights_meet_their_deltas_as_factors(name):
    rule, args = getattr(rules, name), arguments(name)
    out, residuals = rule.fwd(*args)
    found = [f for f in rule.pullback(residuals, out) if isinstance(f, factors.Factor)]
    assert [type(f) for f in found[:3]] == [factors.Outer, factors.Outer, factors.Total]
    assert found[0].a is args[0]
    # One example's gradient is the factor of that example: nothing is summed over the batch yet.
    one = [a[:1] if i < 2 + (name == "lstm") else a for i, a in enumerate(args)]
    alone = rule.bwd(rule.fwd(*one)[1], jax.tree.map(lambda o: o[:1], out))
    first = factors.Outer(found[1].a[:1], found[1].delta[:1]).gradient()
    np.testing.assert_allclose(first, alone[3 + (name == "lstm")], rtol=1e-4, atol=1e-5)


def test_the_gru_has_the_reset_gate_after_the_product():
    """Not before it, as in the paper: with a bias of the state's third the two differ."""
    x, h, w, u, b, c = arguments("gru", time=1)
    h_new = rules.gru_cell(x[:, 0], h, w, u, b, c)
    a, v = x[:, 0] @ w + b, h @ u + c
    r, z = jax.nn.sigmoid(a[:, :4] + v[:, :4]), jax.nn.sigmoid(a[:, 4:8] + v[:, 4:8])
    after = (1 - z) * jnp.tanh(a[:, 8:] + r * v[:, 8:]) + z * h
    before = (1 - z) * jnp.tanh(a[:, 8:] + (r * h) @ u[:, 8:] + c[8:]) + z * h
    np.testing.assert_allclose(h_new, after, rtol=1e-5)
    assert not np.allclose(h_new, before, rtol=1e-3)


def elman_gradient(
    args, out_ct, back=jnp.transpose, met="before", derivative=lambda h: 1 - h * h, carry=True
):
    """Backpropagation through time with one piece left open: Ū."""
    x, h, _, u, _ = args
    every = at_once(rules.elman)(*args)[0]
    before = jnp.concatenate([h[:, None], every[:, :-1]], axis=1)
    delta, u_ct = jnp.zeros_like(h), jnp.zeros_like(u)
    for t in reversed(range(x.shape[1])):
        delta = derivative(every[:, t]) * (out_ct[:, t] + (delta @ back(u) if carry else 0))
        u_ct += (before if met == "before" else every)[:, t].T @ delta
    return u_ct


@pytest.mark.parametrize(
    "mistake",
    [
        {"back": lambda u: u},
        {"met": "after"},
        {"derivative": jnp.ones_like},
        {"derivative": lambda h: h * (1 - h)},
        {"carry": False},
    ],
    ids=["not transposed", "h_t meets δ_t", "no tanh′", "σ′ for tanh′", "last step only"],
)
def test_mistakes_that_others_made_are_no_gradient(mistake):
    args = arguments("elman")
    out_ct = jnp.cos(jnp.arange(2 * 6 * 4.0)).reshape(2, 6, 4)
    right = pullback_of(rules.elman, args, (out_ct, jnp.zeros((2, 4))))[3]
    np.testing.assert_allclose(elman_gradient(args, out_ct), right, rtol=1e-4, atol=1e-5)
    assert not np.allclose(elman_gradient(args, out_ct, **mistake), right, rtol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: rules.elman(*a, truncate=0), "elman: `truncate` must be None or a number of steps"),
        (lambda a: rules.elman(*a, truncate=1.5), "at least 1, got 1.5"),
        (lambda a: rules.gru(*a), r"gru: `w_state` has shape \(4, 4\), expected \(4, 12\): 3 gates"),
        (
            lambda a: rules.lstm_cell(a[1], a[1], a[1], a[3], a[3]),
            r"lstm_cell: `w_state` .* \(4, 16\): 4 gates",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call(arguments("elman"))


def test_a_linear_recurrence_is_a_loop():
    a, b = np.random.default_rng(0).standard_normal((2, 2, 33, 3)).astype("float32")
    h = jnp.ones((2, 3))

    def loop(a, b, h):
        def step(h, each):
            h = each[0] * h + each[1]
            return h, h

        return jnp.moveaxis(lax.scan(step, h, (jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)))[1], 0, 1)

    assert_trees_close(at_once(rules.linear_recurrence)(a, b, h), at_once(loop)(a, b, h))
    assert_trees_close(
        pullback_of(rules.linear_recurrence, (a, b, h)), pullback_of(loop, (a, b, h)), ulps=256
    )
    for time in (0, 1):
        found = pullback_of(rules.linear_recurrence, (a[:, :time], b[:, :time], h))
        assert [ct.shape for ct in found] == [(2, time, 3), (2, time, 3), (2, 3)]
