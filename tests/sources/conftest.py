"""Everything in this folder is computed in float64; every test names the formulas it is about."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "formula(*ids): the formulas of the source texts that a test is about")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
