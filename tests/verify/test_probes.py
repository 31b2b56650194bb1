"""Probes: what is looked at, inside of what is assumed and outside of it."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

from funcbp.verify._inference import infer
from funcbp.verify._probes import probes
from funcbp.verify._problem import Kind, Probe, Problem
from funcbp.verify._resized import resized


def made(problem: Problem, seed: int = 0, samples: int = 8) -> list[Probe]:
    with jax.enable_x64(True):
        out = jax.eval_shape(problem.reference, *problem.example)
    return probes(problem, infer(problem), out, seed, samples)


def question(function, args, argnums=(0,), kind: Kind = "gradient", wrong=None) -> Problem:
    def backward(given, ct):
        out, pullback = jax.vjp(wrong or function, *given)
        return out, tuple(pullback(ct)[i] for i in argnums)

    return Problem(kind, "mine", function, backward, args, argnums)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def cross_entropy(params, x, y, mask):
    z = x @ params["w"] + params["b"]
    return -jnp.sum(mask * jnp.sum(y * jax.nn.log_softmax(z), axis=-1))


def classifier() -> Problem:
    params = {"w": normal(3, 4), "b": np.zeros(4, "float32")}
    return question(cross_entropy, (params, normal(5, 3, seed=1), np.eye(4)[[0, 1, 3, 2, 2]], np.ones(5)))


def elementwise(**options) -> Problem:
    return question(lambda x, y: jnp.sin(x) * y, (normal(4, 3), normal(4, 3, seed=1)), (0, 1), **options)


def test_every_probe_has_the_examples_shapes_and_is_wide():
    problem = classifier()
    found = made(problem)
    assert 40 <= len(found) <= 90
    assert found[0].label == "the example"
    for probe in found:
        for value, leaf in zip(probe.values, problem.leaves, strict=True):
            assert value.shape == leaf.value.shape
            assert value.dtype == np.float64
        assert probe.cotangent == 1
    assert len({b"".join(v.tobytes() for v in probe.values) for probe in found}) == len(found)


def test_inside_means_that_every_assumption_holds():
    problem = classifier()
    assumptions = infer(problem)
    found = made(problem)
    for probe in found:
        holds = [a.domain.contains(v) for a, v in zip(assumptions, probe.values, strict=True)]
        assert all(holds) == probe.inside == (not probe.label.startswith("outside: ")), probe.label
    assert 3 <= sum(not probe.inside for probe in found) <= 14


def test_the_same_seed_gives_the_same_probes():
    one, same, other = made(elementwise()), made(elementwise()), made(elementwise(), seed=1)
    assert all(
        np.array_equal(a, b)
        for p, q in zip(one, same, strict=True)
        for a, b in zip(p.values, q.values, strict=True)
    )
    assert not np.array_equal(one[1].values[0], other[1].values[0])


def test_more_samples_give_more_probes():
    assert len(made(elementwise(), samples=20)) == len(made(elementwise(), samples=8)) + 12


def has_tied_row(x, y):
    return any(len(np.unique(row)) < len(row) for row in x)


SPECIAL = {
    "a single zero": lambda x, y: (x == 0).sum() == 1,
    "zeros": lambda x, y: not x.any(),
    "a row of zeros": lambda x, y: (~x.any(-1)).sum() == 1,
    "everything zero": lambda x, y: not x.any() and not y.any(),
    "a tie": lambda x, y: has_tied_row(x, y) and len(np.unique(x)) > 3,
    "a tie at the largest": lambda x, y: ((x == x.max(-1, keepdims=True)).sum(-1) > 1).all(),
    "equal rows": lambda x, y: len(np.unique(x, axis=0)) == 3,
    "all equal": lambda x, y: len(np.unique(x)) == 1 and x.any(),
    "equal arguments": lambda x, y: np.array_equal(x, y) and x.any(),
    "saturated": lambda x, y: (np.abs(x) == 20).any() and (np.abs(x) < 20).any(),
    "far saturated": lambda x, y: (np.abs(x) == 1000).any(),
    "small": lambda x, y: x.any() and np.abs(x).max() < 1e-3,
    "huge": lambda x, y: np.abs(x).min() > 10,
    "one huge argument": lambda x, y: np.abs(x).max() > 1e3 and np.abs(y).max() < 10,
    "subnormal": lambda x, y: ((x != 0) & (np.abs(x) < np.finfo("float32").tiny)).any(),
    "ones": lambda x, y: (x == 1).any() and (x == -1).any(),
    "next to one": lambda x, y: (np.isclose(x, 0.999) | np.isclose(x, 1.001)).any(),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_are_among_them(name):
    assert any(SPECIAL[name](*probe.values) for probe in made(elementwise()) if probe.inside)


def test_extreme_magnitudes_are_not_ordinary():
    for probe in made(elementwise()):
        sizes = np.abs(np.concatenate([v.ravel() for v in probe.values]))
        assert not (probe.ordinary and sizes.max() > 15)
        assert not (probe.ordinary and ((sizes > 0) & (sizes < 1e-20)).any())
    assert sum(probe.ordinary for probe in made(elementwise())) > 20


def test_thresholds_of_both_functions_are_met():
    def wrong(x):
        return jnp.where(x > 6, 0.0, x)

    found = made(question(lambda x: jnp.clip(x, -2.5, 2.5), (normal(8),), wrong=wrong))
    for threshold in (2.5, 6.0):
        for factor in (1, -1, 1 - 1e-3, 1 + 1e-3):
            assert any(np.isclose(p.values[0], threshold * factor, rtol=1e-9, atol=0).any() for p in found)


def test_a_scalar_meets_thresholds_too():
    found = made(question(lambda x: jnp.maximum(x, 3.5), (0.5,)))
    assert any(probe.values[0] == 3.5 for probe in found)
    assert any(3.5 < probe.values[0] < 3.51 for probe in found)


def test_indices_repeat_and_meet_their_ends():
    def rows(x, index):
        return jnp.take(x, index, axis=0)

    found = [p.values[1] for p in made(question(rows, (normal(6, 2), np.array([4, 0, 2])), kind="vjp"))]
    assert any(len(np.unique(index)) == 2 for index in found)
    assert any((index == 0).all() for index in found)
    assert any((index == 4).all() for index in found)
    assert all(np.isin(index, (0, 2, 4)).all() for index in found)


def test_masks_are_full_and_empty():
    def kept(x, mask):
        return jnp.sum(jnp.where(mask, x, 0.0))

    mask = np.array([[True, False, True], [False, True, True]])
    found = made(question(kept, (normal(2, 3), mask)))
    assert any(p.values[1].all() and p.inside for p in found)
    assert any(not p.values[1].any() and not p.inside for p in found)  # the example keeps some of every row
    assert any((p.values[1].sum(-1) == 1).all() and p.inside for p in found)
    assert any((~p.values[1].any(-1)).sum() == 1 for p in found)


def test_probabilities_meet_the_edge_of_the_simplex():
    target = np.array([[0.2, 0.8], [0.5, 0.5]])
    found = made(question(lambda z, p: -jnp.sum(p * jax.nn.log_softmax(z)), (normal(2, 2), target)))
    assert any(p.inside and np.isin(p.values[1], (0, 1)).all() for p in found)


def test_a_repeated_number_in_a_permutation_is_outside():
    found = made(question(lambda x, order: x[order], (normal(5), np.array([3, 1, 0, 2, 4])), kind="vjp"))
    repeated = [p for p in found if len(np.unique(p.values[1])) < 5]
    assert repeated
    assert not any(p.inside for p in repeated)


def test_cotangents_are_signed_and_uneven():
    for probe in made(elementwise(kind="jacobian")):
        ct = probe.cotangent
        assert ct.shape == (4, 3)
        assert (ct > 0).any()
        assert (ct < 0).any()
        assert len(np.unique(ct)) == 12


def test_linearity_in_the_cotangent_can_be_seen():
    found = {probe.label: probe for probe in made(elementwise(kind="vjp"))}
    for place in ("the example", "fresh values"):
        special = {
            what: found[f"{place}, cotangent {what}"] for what in ("a", "b", "a + b", "zero", "one-hot")
        }
        values = [p.values[0].tobytes() for p in special.values()]
        assert len(set(values)) == 1
        total = special["a"].cotangent + special["b"].cotangent
        np.testing.assert_allclose(special["a + b"].cotangent, total)
        assert not special["zero"].cotangent.any()
        assert special["one-hot"].cotangent.sum() == 1


def test_keys_integers_and_complex_outputs():
    def noisy(x, key):
        y = x + jax.random.normal(key, x.shape)
        return y.astype(complex), jnp.argmax(y)

    with jax.enable_x64(True):
        found = made(question(noisy, (normal(4), jax.random.key(0)), kind="vjp"))
    keys = {tuple(np.asarray(jax.random.key_data(p.values[1])).tolist()) for p in found}
    assert len(keys) > 5
    assert all(np.iscomplexobj(p.cotangent[0]) for p in found)
    assert found[0].cotangent[1] == 0


def test_large_arguments_get_fewer_probes():
    large = question(lambda x: jnp.sum(x), (np.zeros(2**19, "float32"),))
    assert len(made(large, samples=3)) <= 32


# ------------------------------------------------------------------------------------------ other sizes


def others(problem: Problem):
    return resized(problem, infer(problem))


def test_axes_of_equal_length_change_together():
    found = {other.label: other for other in others(classifier())}
    one = found["axes of length 5 now have length 1"].problem
    assert [leaf.value.shape for leaf in one.leaves] == [(4,), (3, 4), (1, 3), (1, 4), (1,)]
    empty = found["axes of length 5 now have length 0"].problem
    assert empty.leaves[2].value.shape == (0, 3)
    assert "axes of length 3 now have length 1" in found
    for other in found.values():
        for probe in other.probes:
            for value, leaf in zip(probe.values, other.problem.leaves, strict=True):
                assert value.shape == leaf.value.shape
                assert leaf.value.dtype == value.dtype or leaf.value.dtype == np.float32


def test_one_size_is_large():
    sizes = [sum(np.size(leaf.value) for leaf in other.problem.leaves) for other in others(elementwise())]
    assert 20_000 < max(sizes) <= 200_000


def test_a_narrow_band_is_hit_by_a_large_array():
    largest = max(others(elementwise()), key=lambda other: other.problem.leaves[0].value.size)
    x = np.concatenate([probe.values[0].ravel() for probe in largest.probes])
    assert ((x > 3.0) & (x < 3.002)).any()


def test_memory_bounds_the_growth():
    def pairwise(x):
        return jnp.sum(jnp.tanh(x[:, None] - x[None, :]))

    sizes = [other.problem.leaves[0].value.size for other in others(question(pairwise, (normal(6),)))]
    assert 50 < max(sizes) < 1000


def test_loops_in_python_are_not_unrolled_further():
    def recurrent(x):
        h = 0.0
        for t in range(x.shape[0]):
            h = jnp.tanh(h + x[t])
        return h

    sizes = [other.problem.leaves[0].value.size for other in others(question(recurrent, (normal(6),)))]
    assert sizes
    assert max(sizes) <= 6


def test_sizes_that_do_not_trace_are_skipped():
    weights = normal(5)
    fixed = question(lambda x: jnp.sum(x.reshape(5) * weights), (normal(5),))
    assert others(fixed) == []


def test_a_candidate_of_other_shapes_is_skipped():
    constant = normal(5)

    def backward(given, ct):
        return None, (jnp.asarray(constant),)

    problem = Problem("gradient", "mine", lambda x: jnp.sum(x * constant), backward, (normal(5),), (0,))
    assert others(problem) == []


def test_indices_stay_within_a_shorter_axis():
    def rows(x, index):
        return jnp.take(x, index, axis=0)

    problem = question(rows, (normal(6, 2), np.array([4, 0, 2])), kind="vjp")
    for other in others(problem):
        x, index = (leaf.value for leaf in other.problem.leaves)
        assert not index.size or index.max() < max(x.shape[0], 1)
        assert all(probe.values[1].max(initial=0) < x.shape[0] for probe in other.probes)


@hypothesis.given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(), (1,), (0,), (3,), (2, 1), (1, 3), (2, 2), (2, 3, 2)]),
)
def test_any_shape_can_be_probed(seed, shape):
    args = (
        np.random.default_rng(seed).standard_normal(shape),
        np.random.default_rng(seed).integers(0, 3, shape),
    )
    found = made(question(lambda x, i: jnp.sum(x * i), args), seed=seed, samples=3)
    assert found[0].label == "the example"
    assert all(np.isfinite(probe.values[0]).all() for probe in found)
