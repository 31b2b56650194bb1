"""What an example says about its values: structure stays, and arbitrary numbers stay arbitrary."""

import hypothesis
import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from funcbp import domains
from funcbp.verify._inference import Assumption, infer
from funcbp.verify._problem import Problem

seeds = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def matrix(n: int = 3) -> np.ndarray:
    return rng().standard_normal((n, n))


def problem(*args: object, argnums: tuple[int, ...] = ()) -> Problem:
    return Problem("gradient", "mine", lambda *a: 0.0, lambda a, ct: (None, a), args, argnums)


def assume(value: object, wrt: bool = False) -> Assumption:
    """What is assumed of a value; beside integers there is an array that they may be indices of."""
    whole = isinstance(value, np.ndarray) and value.dtype.kind == "i" and value.ndim > 0
    indexed = [np.zeros(len(value))] if whole else []
    return infer(problem(value, *indexed, argnums=(0,) if wrt else ()))[0]


def zeros_and_ones(x):
    return np.isin(x, (0, 1)).all()


def symmetric(x):
    return (x == x.swapaxes(-1, -2)).all()


EXAMPLES = {
    "one-hot": (
        np.eye(4)[[0, 2, 1]],
        lambda x: (np.sort(x, -1)[:, :-1] == 0).all() and (x.max(-1) == 1).all(),
    ),
    "one-hot columns": (
        np.eye(4)[:, [0, 2, 0]],
        lambda x: (x.sum(0) == 1).all() and np.isin(x, (0, 1)).all(),
    ),
    "simplex": (
        np.float32([[0.25, 0.75], [0.1, 0.9]]),
        lambda x: np.allclose(x.sum(-1), 1) and (x >= 0).all(),
    ),
    "mask": (np.array([[0.0, 1, 1], [1, 0, 1]]), lambda x: zeros_and_ones(x) and x.any(-1).all()),
    "all ones": (np.ones((2, 3)), lambda x: zeros_and_ones(x) and x.any(-1).all()),
    "labels": (np.array([1.0, -1, -1, 1]), lambda x: np.isin(x, (-1, 1)).all()),
    "additive mask": (np.where(np.eye(3) > 0, 0.0, -np.inf), lambda x: (x.max(-1) == 0).all()),
    "counts": (np.array([3.0, 0, 7, 1, 0]), lambda x: np.isin(x, (0, 1, 3, 7)).all()),
    "symmetric": (matrix() + matrix().T, symmetric),
    "skew": (matrix() - matrix().T, lambda x: (x == -x.T).all()),
    "definite": (matrix() @ matrix().T, lambda x: symmetric(x) and (np.linalg.eigvalsh(x) > 0).all()),
    "adjacency": (
        np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
        lambda x: symmetric(x) and not np.diag(x).any(),
    ),
    "lower": (np.tril(matrix()), lambda x: (np.tril(x) == x).all()),
    "upper": (np.triu(matrix()), lambda x: (np.triu(x) == x).all()),
    "orthogonal": (np.linalg.qr(matrix())[0], lambda x: np.allclose(x @ x.T, np.eye(3))),
    "unit rows": (
        matrix() / np.linalg.norm(matrix(), axis=1, keepdims=True),
        lambda x: np.allclose(np.linalg.norm(x, axis=-1), 1),
    ),
    "between zero and one": (np.array([0.3, 0.6, 0.2]), lambda x: ((x > 0) & (x < 1)).all()),
    "positive": (np.array([3.0, 1.5, 20.3, 0.1]), lambda x: (x > 0).all()),
    "not negative": (np.array([3.0, 0.0, 20.3, 0.1, 0.25]), lambda x: (x >= 0).all()),
    "sorted": (np.array([-3.0, 0.5, 0.7, 2.1]), lambda x: (np.diff(x) >= 0).all()),
    "descending": (np.array([3.0, 0.5, -0.7, -2.1]), lambda x: (np.diff(x) <= 0).all()),
    "segments": (np.array([0, 0, 1, 3]), lambda x: (np.diff(x) >= 0).all() and np.isin(x, (0, 1, 3)).all()),
    "classes": (np.array([4, 0, 0, 2]), lambda x: np.isin(x, (0, 2, 4)).all()),
    "permutation": (np.array([2, 0, 1, 3]), lambda x: (np.sort(x) == np.arange(4)).all()),
    "Hermitian": (np.array([[1.0, 2j], [-2j, -3.0]]), lambda x: (x == x.conj().T).all()),
}


@pytest.mark.parametrize("name", EXAMPLES)
@hypothesis.given(seed=seeds)
def test_what_is_drawn_has_the_structure_of_the_example(name, seed):
    example, holds = EXAMPLES[name]
    assumption = assume(example)
    drawn = assumption.domain.sample(rng(seed), example.shape, {})
    assert drawn.shape == example.shape
    assert holds(drawn)
    assert assumption.domain.contains(drawn)
    assert assumption.narrow
    assert assumption.phrase.startswith("a[0]: ")
    assert assumption.phrase.endswith("as in the example")


@pytest.mark.parametrize("name", EXAMPLES)
def test_draws_differ_and_deviations_are_no_members(name):
    example, _ = EXAMPLES[name]
    domain = assume(example).domain
    drawn = [domain.sample(rng(seed), example.shape, {}).tobytes() for seed in range(20)]
    assert len(set(drawn)) > 2
    for what, value in domain.beyond(rng(), domain.sample(rng(), example.shape, {})):
        assert what
        assert value.shape == example.shape
    outside = [value for seed in range(5) for _, value in domain.beyond(rng(seed), example)]
    assert not outside or not all(map(domain.contains, outside))


@pytest.mark.parametrize("name", EXAMPLES)
@hypothesis.given(seed=seeds)
def test_projecting_leads_into_the_set_and_leaves_members_alone(name, seed):
    example, _ = EXAMPLES[name]
    domain = assume(example).domain
    inside = domain.project(domain.sample(rng(seed), example.shape, {}))
    assert domain.contains(inside)
    wild = (3 * rng(seed).standard_normal(example.shape)).astype(example.dtype)
    assert domain.contains(domain.project(wild))
    np.testing.assert_allclose(domain.project(inside), inside, rtol=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        rng().standard_normal((3, 4)),
        np.zeros((2, 3)),
        np.ones(5),
        np.arange(6.0).reshape(2, 3),
        np.array([1.0, -1.0, 1.0, -1.0]),
        np.ones(3, ml_dtypes.bfloat16),
        np.zeros((0, 3)),
        -2.5,
    ],
)
def test_what_is_differentiated_and_has_no_structure_is_any_number(value):
    assumption = assume(value, wrt=True)
    drawn = assumption.domain.sample(rng(), (100,), {})
    assert not assumption.narrow
    assert (drawn < 0).any()
    assert len(np.unique(drawn)) == 100


def test_mean_and_scale_of_the_example_carry_over():
    example = 1e-3 * rng().standard_normal(1000) - 7
    drawn = assume(example).domain.sample(rng(1), (1000,), {})
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [example.mean(), example.std()], rtol=0.1)


def test_a_positive_scalar_beside_arrays_is_a_hyperparameter():
    _, rate, momentum = infer(problem(matrix(), 10.0, 0.9))
    rates = rate.domain.sample(rng(), (1000,), {})
    momenta = momentum.domain.sample(rng(), (1000,), {})
    assert 10 / 3.01 < rates.min() < 4
    assert 25 < rates.max() < 30.1
    assert 0.6 < momenta.min() < momenta.max() < 1


def test_a_scalar_alone_is_any_number():
    assert not assume(0.5, wrt=True).narrow


def test_identity_matrices_are_labels_or_definite():
    labels, covariance = assume(np.eye(3)), assume(np.eye(3), wrt=True)
    assert (labels.domain.sample(rng(), (5, 3), {}).sum(-1) == 1).all()
    assert (np.linalg.eigvalsh(covariance.domain.sample(rng(), (3, 3), {})) > 0).all()


def test_repeated_indices_lie_outside_of_a_permutation_but_may_well_be_meant():
    assumption = assume(np.array([0, 2, 1]))
    deviations = [value for _, value in assumption.domain.beyond(rng(), np.array([0, 2, 1]))]
    assert any(len(set(value.tolist())) < 3 for value in deviations)
    np.testing.assert_allclose(assumption.chance, 6 / 27)


def test_a_guess_that_chance_would_suggest_says_so():
    few, many = assume(np.array([2.0, 1.7, 1.9, 3.1])), assume(rng().uniform(1, 2, 40))
    assert few.chance == 2.0**-4
    assert many.chance == 2.0**-40


def test_keys_and_booleans():
    key, raw, truth, any_row = infer(
        problem(
            jax.random.split(jax.random.key(1), 2),
            np.asarray(jax.random.PRNGKey(0)),
            np.array([[True, False], [False, False]]),
            np.array([[True, False], [False, True]]),
        )
    )
    fresh = key.domain.sample(rng(), (2,), {})
    assert fresh.shape == (2,)
    assert jax.random.normal(fresh[0]) != jax.random.normal(fresh[1])
    assert raw.domain.sample(rng(), (2,), {}).dtype == np.uint32
    assert truth.domain.sample(rng(), (50, 2), {}).dtype == bool
    assert not truth.domain.sample(rng(), (50, 2), {}).any(-1).all()
    assert any_row.domain.sample(rng(), (50, 2), {}).any(-1).all()
    assert not any(a.narrow for a in (key, raw, truth))
    assert any_row.narrow
    assert not any_row.domain.contains(np.array([[True, False], [False, False]]))


def test_the_users_domain_comes_first_by_name_or_position():
    def loss(params, y):
        return 0.0

    args = ({"w": matrix(), "n": np.array([1, 2])}, np.eye(3))
    asked = Problem("gradient", "mine", loss, lambda a, ct: (None, a), args, (0,))
    given = {"y": domains.Uniform(2.0, 3.0), 0: domains.Positive()}
    n, w, y = infer(asked, given)
    drawn = y.domain.sample(rng(), (9,), {})
    assert ((drawn >= 2) & (drawn < 3)).all()
    assert not y.domain.contains(np.array([1.0]))
    assert (w.domain.sample(rng(), (9,), {}) > 0).all()
    assert np.isin(n.domain.sample(rng(), (9,), {}), (1, 2)).all()  # integers: the domain does not fit
    assert "given by domain" in y.phrase
    assert not y.narrow


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (domains.Positive(), [0.5], [0.0]),
        (domains.Simplex(), [0.5, 0.5], [0.5, 0.6]),
        (domains.Integers(0, 3), [2.0], [3.0]),
        (domains.AwayFrom((0.0,), 0.1), [0.2], [0.05]),
        (domains.Booleans(), [1.0], [0.5]),
    ],
)
def test_membership_in_a_users_domain(domain, inside, outside):
    structure = infer(problem(np.zeros(len(inside))), {0: domain})[0].domain
    assert structure.contains(np.array(inside))
    assert not structure.contains(np.array(outside))


def test_a_domain_of_an_unknown_argument_is_refused():
    with pytest.raises(ValueError, match=r"'z'.*a\[0\]"):
        infer(problem(1.0), {"z": domains.Normal()})
    with pytest.raises(ValueError, match="1"):
        infer(problem(1.0), {1: domains.Normal()})


def test_a_domain_with_named_axes_is_refused():
    with pytest.raises(ValueError, match=r"a\[0\].*'c'"):
        infer(problem(np.array([1, 2])), {0: domains.Integers(0, "c")})
