"""Domains draw what they say."""

import numpy as np
import pytest

from funcbp import domains

SHAPE = (6, 5, 5)


def drawn(domain: domains.Domain, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return domain.sample(np.random.default_rng(0), shape, {})


def test_distinct_numbers_are_apart():
    x = np.sort(drawn(domains.Distinct(), (6, 5, 7)).reshape(6, 35))
    assert np.diff(x).min() > 4 / 35 / 4
    assert np.abs(x).max() < 2.1


@pytest.mark.parametrize("shape", [SHAPE, (6, 4, 2), (6, 2, 4)])
def test_a_well_conditioned_matrix_is_one(shape: tuple[int, ...]):
    values = np.linalg.svd(drawn(domains.WellConditioned(), shape), compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.5
    assert (-np.diff(values)).min() > 0.1


def test_a_positive_definite_matrix_is_one():
    x = drawn(domains.PositiveDefinite())
    np.testing.assert_array_equal(x, np.swapaxes(x, -1, -2))
    values = np.linalg.eigvalsh(x)
    assert values.min() > 0.5
    assert np.diff(values).min() > 0.1


def test_a_symmetric_matrix_has_eigenvalues_of_either_sign():
    x = drawn(domains.Symmetric())
    np.testing.assert_array_equal(x, np.swapaxes(x, -1, -2))
    values = np.linalg.eigvalsh(x)
    assert (values.min(-1) < 0).all()
    assert (values.max(-1) > 0).all()


@pytest.mark.parametrize("lower", [True, False])
def test_a_triangular_matrix_is_invertible(lower: bool):
    x = drawn(domains.Triangular(lower))
    np.testing.assert_array_equal(x, np.tril(x) if lower else np.triu(x))
    diagonal = np.diagonal(x, axis1=-2, axis2=-1)
    assert diagonal.min() > 0.5
    assert diagonal.max() < 1.5


def test_signs():
    assert set(np.unique(drawn(domains.Signs()))) == {-1.0, 1.0}


@pytest.mark.parametrize(
    "domain",
    [
        domains.WellConditioned(),
        domains.PositiveDefinite(),
        domains.Symmetric(),
        domains.Triangular(),
        domains.Distinct(),
    ],
)
@pytest.mark.parametrize("shape", [(3, 0, 0), (0, 4, 4), (3, 1, 1)])
def test_empty_and_size_one_matrices(domain: domains.Domain, shape: tuple[int, ...]):
    assert drawn(domain, shape).shape == shape
