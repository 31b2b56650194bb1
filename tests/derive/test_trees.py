"""No wrong result on random expressions; what cannot be derived is refused by name."""

import json

import jax
import numpy as np
import pytest

from .numerics import evaluated
from .random_trees import RECORD, TREES, digest, outcome
from .trees import tree

DEFAULT, GROUP = 24, 500


def test_random_trees(x64) -> None:
    """Some of all, evenly chosen."""
    outcomes = [outcome(seed) for seed in range(0, TREES, TREES // DEFAULT)]
    assert not [o for o in outcomes if o.kind in ("wrong", "failed")]
    assert sum(o.kind == "right" for o in outcomes) >= 0.95 * len(outcomes)


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, TREES, GROUP))
def test_many_random_trees(start: int, x64) -> None:
    outcomes = [outcome(seed) for seed in range(start, start + GROUP)]
    assert not [o for o in outcomes if o.kind in ("wrong", "failed")]
    assert sum(o.kind == "right" for o in outcomes) >= 0.95 * len(outcomes)
    jax.clear_caches()


def test_the_record_is_of_these_trees() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["generator"] == digest()
    assert record["wrong"] == record["failed"] == 0
    assert record["right"] + record["refused"] + record["undefined"] == record["trees"] == TREES
    assert record["right"] >= 0.95 * record["trees"]


@pytest.mark.parametrize("seed", [3, 17, 34])
def test_numpy_computes_what_jax_does(seed: int, x64) -> None:
    random = tree(seed)
    values = random.arguments
    differentiated = jax.value_and_grad(random.function, tuple(range(len(values))))
    truth, found = (
        jax.tree.leaves(differentiated(*values)),
        jax.tree.leaves(evaluated(differentiated, *values)),
    )
    for a, b in zip(truth, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14)
