"""Strategies draw what their domain says, hit what is special about it, and shrink to the least failure."""

import subprocess
import sys

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from jax import numpy as jnp

from funcbp import domains, rules
from funcbp.verify import strategies

SHRINKING = hypothesis.settings(max_examples=500, derandomize=True, database=None)
FINDING = hypothesis.settings(SHRINKING, phases=[hypothesis.Phase.generate])


def smallest(strategy, condition):
    return find(strategy, condition, settings=SHRINKING)


def some(strategy, condition):
    return find(strategy, condition, settings=FINDING)


INSIDE = {
    domains.Normal(2.0): np.isfinite,
    domains.Uniform(-1.0, 3.0): lambda x: (x >= -1) & (x < 3),
    domains.Positive(0.5): lambda x: x > 0,
    domains.Integers(2, 5): lambda x: (x >= 2) & (x < 5),
    domains.Booleans(): lambda x: (x == 0) | (x == 1),
    domains.AwayFrom((0.0, 1.0), margin=0.25): lambda x: (abs(x) >= 0.25) & (abs(x - 1) >= 0.25),
}


@pytest.mark.parametrize("domain", INSIDE, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_values_are_in_the_domain(domain, dtype):
    @given(strategies.arrays(domain, (3, 2), dtype))
    def check(x):
        assert x.shape == (3, 2)
        assert x.dtype == jnp.dtype(dtype)
        assert INSIDE[domain](x.astype(np.float64)).all()

    check()


@given(strategies.arrays(domains.Simplex(), (3, 4), "float64"))
def test_rows_are_in_the_simplex(x):
    assert (x >= 0).all()
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-15)


@pytest.mark.parametrize(
    ("domain", "special"),
    [
        (domains.Normal(), lambda x: (x == 0).all()),
        (domains.Normal(), lambda x: abs(x).max() > 1000),
        (domains.Normal(), lambda x: x[0] == x[1] != 0),
        (domains.Uniform(0.0, 1.0), lambda x: (x == 0).any()),
        (domains.Uniform(0.0, 1.0), lambda x: (x > 0.999999).any()),
        (domains.Simplex(), lambda x: (x == 1).any()),
        (domains.AwayFrom((0.0,), margin=0.25), lambda x: (x == -0.25).any()),
    ],
)
def test_special_values_come_up(domain, special):
    some(strategies.arrays(domain, (3,)), special)


@pytest.mark.parametrize(
    ("domain", "fails", "least"),
    [
        (domains.Normal(), lambda x: (x > 1).any(), [0, 0, 2]),
        (domains.Positive(), lambda x: (x > 0).all(), [1, 1, 1]),
        (domains.Integers(0, 9), lambda x: x.max() >= 4, [0, 0, 4]),
    ],
)
def test_failures_shrink(domain, fails, least):
    np.testing.assert_array_equal(sorted(smallest(strategies.arrays(domain, (3,)), fails)), least)


def test_complex_arrays_have_both_parts():
    x = smallest(strategies.arrays(domains.Normal(), (2,), "complex64"), lambda x: (x.imag * x.real).all())
    assert x.dtype == np.complex64
    np.testing.assert_array_equal(x, [1 + 1j, 1 + 1j])


def test_a_domain_of_ones_own_is_sampled():
    class Evens:
        def sample(self, rng, shape, sizes):
            return 2 * rng.integers(0, sizes["top"], shape)

    strategy = strategies.arrays(Evens(), (4,), "int32", sizes={"top": 3})
    x = some(strategy, lambda x: (x == 4).any())
    assert set(x.tolist()) <= {0, 2, 4}


def test_a_named_length_has_to_be_given():
    strategies.arrays(domains.Integers(0, "classes"), (2,), "int32", sizes={"classes": 3})
    with pytest.raises(ValueError, match=r"'classes'.*sizes="):
        strategies.arrays(domains.Integers(0, "classes"), (2,), "int32")


@given(st.data())
def test_trees_follow_shapes_and_domains(data):
    like = {"w": np.zeros((2, 3), "float64"), "b": [jax.ShapeDtypeStruct((3,), "float32")]}
    tree = data.draw(strategies.pytrees({"w": domains.Normal(), "b": domains.Positive()}, like))
    assert jax.tree.structure(tree) == jax.tree.structure(like)
    assert [(x.shape, x.dtype.name) for x in jax.tree.leaves(tree)] == [
        ((3,), "float32"),
        ((2, 3), "float64"),
    ]
    assert (tree["b"][0] > 0).all()


def test_one_domain_is_for_all_arrays_below_it():
    tree = smallest(strategies.pytrees(domains.Positive(), [np.zeros(2), (np.zeros(1),)]), lambda _: True)
    assert jax.tree.map(np.ndarray.tolist, tree) == [[1, 1], ([1],)]
    with pytest.raises(ValueError, match="a"):
        strategies.pytrees({"a": domains.Normal()}, [np.zeros(2)])


def test_cotangents_have_the_outputs_tree_and_dtypes():
    like = (jax.ShapeDtypeStruct((2,), "bfloat16"), np.zeros((2, 1), "int32"))
    floating, integer = some(strategies.cotangents(like), lambda cts: (cts[0] != 0).all())
    assert (floating.shape, floating.dtype) == ((2,), jnp.bfloat16)
    assert (integer.shape, integer.dtype) == ((2, 1), jax.dtypes.float0)


def test_arguments_of_a_rule_have_its_shapes_kinks_and_absences():
    strategy = strategies.arguments(rules.dense, "float64")
    x, w, b = some(strategy, lambda args: args[0].ndim == 3 and args[2] is not None)
    assert (x.shape[-1], b.shape[0]) == w.shape
    assert x.dtype == w.dtype == b.dtype == np.float64
    assert some(strategy, lambda args: args[2] is None)[2] is None
    assert some(strategy, lambda args: args[0].size == 0)[0].size == 0
    (p,) = some(strategies.arguments(rules.relu), lambda args: args[0].size > 1 and (args[0] == 0).all())
    assert p.dtype == np.float32


def test_arguments_stay_within_the_classes_there_are():
    @given(strategies.arguments(rules.softmax_cross_entropy_with_integer_labels))
    def check(args):
        logits, labels, _ = args
        assert labels.dtype == np.int32
        assert ((labels >= 0) & (labels < logits.shape[-1])).all()

    check()


def test_shapes_that_a_rule_refuses_are_not_drawn():
    @given(strategies.arguments(rules.softmax, static={"axis": -2}))
    def check(args):
        assert args[0].ndim >= 2

    check()


def test_a_wrong_backward_pass_fails_at_the_least_array():
    """What the strategies are for: this one is wrong at 0 only, where random numbers never are."""

    def differs(args):
        (p,) = args
        ours = rules.relu.bwd(rules.relu.fwd(p)[1], np.ones_like(p))[0]
        return (ours != np.where(p >= 0, 1, 0)).any()

    (p,) = smallest(strategies.arguments(rules.relu), differs)
    assert p.shape == ()
    assert p == 0


def test_without_hypothesis_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "try:\n    import funcbp.verify.strategies\nexcept ImportError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "funcbp[test]"' in done.stdout
