"""Reads by index and their transposes: duplicates, what is out of range, what is kept, and wrong options."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import factors, layers, rules

TABLE = jnp.arange(12.0).reshape(4, 3)


def test_the_gradient_of_an_embedding_is_kept_as_ids_and_delta():
    ids = jnp.array([2, 0, 2])
    delta = jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [4.0, 5.0, 6.0]])
    _, residuals = rules.embedding.fwd(TABLE, ids)
    factor, ids_ct = rules.embedding.pullback(residuals, delta)
    assert isinstance(factor, factors.Rows)
    assert ids_ct is None
    table_ct = rules.embedding.bwd(residuals, delta)[0]
    # Assigning instead of adding, a shipped mistake, would leave (4, 5, 6) in row 2.
    np.testing.assert_array_equal(table_ct, [[10, 20, 30], [0, 0, 0], [5, 7, 9], [0, 0, 0]])


def test_the_embedding_reads_what_the_layer_reads_also_outside():
    ids = jnp.array([[0, 3], [-1, 4]])
    layer = layers.embedding(4, 3)
    read = layer.fwd({"table": TABLE}, (), ids, None)[0]
    np.testing.assert_array_equal(rules.embedding(TABLE, ids), read)
    assert np.isnan(read[1]).all()
    table_ct, _ = rules.embedding.bwd(rules.embedding.fwd(TABLE, ids)[1], jnp.ones((2, 2, 3)))
    np.testing.assert_array_equal(table_ct[:, 0], [1, 0, 0, 1])


def test_a_linear_map_keeps_no_array_but_its_indices():
    x = jnp.ones((2, 3))
    ids = jnp.array([0, 1])
    for rule, args in (
        (rules.flip, (x,)),
        (rules.pad, (x,)),
        (rules.cumsum, (x,)),
        (rules.mean, (x,)),
        (rules.take, (x, ids)),
        (rules.segment_sum, (x, ids)),
        (rules.where, (x > 0, x, x)),
    ):
        kept = jax.tree.leaves(rule.fwd(*args)[1])
        assert not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in kept), rule.name


def test_many_small_cotangents_add_up_in_float32():
    x, ids = jnp.zeros(1, jnp.bfloat16), jnp.zeros(1000, jnp.int32)
    (x_ct, _) = rules.take.bwd(rules.take.fwd(x, ids)[1], jnp.ones(1000, jnp.bfloat16))
    assert float(x_ct[0]) == 1000  # bfloat16 stops counting at 256
    assert float(rules.segment_sum(jnp.ones(1000, jnp.bfloat16), ids, num_segments=1)[0]) == 1000


@pytest.mark.parametrize("start", [-1, 0, 1, 3, 100])
def test_a_slice_is_pulled_back_to_where_it_was_read(start: int):
    x = jnp.arange(5.0)
    read, residuals = rules.dynamic_slice_in_dim.fwd(x, jnp.int32(start), size=3)
    x_ct, _ = rules.dynamic_slice_in_dim.bwd(residuals, jnp.ones(3), size=3)
    np.testing.assert_array_equal(x[np.flatnonzero(x_ct)], read)


def test_rows_of_no_segment_are_dropped_not_wrapped():
    data = jnp.array([1.0, 2.0, 4.0, 8.0])
    ids = jnp.array([-1, 0, 5, 0])
    np.testing.assert_array_equal(rules.segment_sum(data, ids, num_segments=3), [10, 0, 0])
    for rule in (rules.segment_sum, rules.segment_mean, rules.segment_max, rules.segment_softmax):
        out, residuals = rule.fwd(data, ids, num_segments=3)
        data_ct, _ = rule.bwd(residuals, jnp.arange(1.0, len(out) + 1), num_segments=3)
        assert data_ct[0] == 0, rule.name
        assert data_ct[2] == 0, rule.name
        assert data_ct[3] != 0, rule.name


def test_softmax_of_segments_is_the_softmax_of_each():
    data = jnp.array([1.0, 2.0, 0.0, -1.0])
    out = rules.segment_softmax(data, jnp.array([1, 0, 1, 0]))
    np.testing.assert_allclose(out[::2], jax.nn.softmax(data[::2]), rtol=1e-6)
    np.testing.assert_allclose(out[1::2], jax.nn.softmax(data[1::2]), rtol=1e-6)


def test_the_maximum_of_segments_forms_no_product_of_rows_and_segments():
    rows = segments = 512
    given = jnp.ones(rows), jnp.zeros(rows, jnp.int32)

    def pulled(data: jax.Array, ids: jax.Array) -> Any:
        out, residuals = rules.segment_max.fwd(data, ids, num_segments=segments)
        return rules.segment_max.bwd(residuals, jnp.ones_like(out), num_segments=segments)[0]

    memory = jax.jit(pulled).lower(*given).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * rows * segments / 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rules.split(x, index=9), r"split: index = 9 is outside the 3 elements of axis -1"),
        (lambda x: rules.split(x, index=-1), r"split: index = -1 is outside"),
        (lambda x: rules.pad(x, low=-2, high=-2), r"pad: low = -2 and high = -2 cut off more than the 3"),
        (lambda x: rules.top_k_values(x, k=4), r"top_k_values: k = 4 is outside the 3 elements"),
        (lambda x: rules.quantile(x, q=1.5), r"quantile: q = 1.5 is no fraction; choose one from 0 to 1"),
        (lambda x: rules.dropout(x, x > 0, rate=1.0), r"dropout: rate = 1.0 is outside \[0, 1\)"),
        (lambda x: rules.clip(x, min=2.0), r"clip: min = 2.0 must be below max = 1.0"),
        (
            lambda x: rules.segment_sum(x, jnp.array([0, 1]), num_segments=-1),
            "segment_sum: num_segments must be a whole number from 0 on, .* got -1",
        ),
        (
            lambda x: rules.segment_max(x, jnp.array([0, 1]), num_segments=2.5),
            "segment_max: num_segments must be a whole number",
        ),
        (
            lambda x: rules.dynamic_slice_in_dim(x, jnp.int32(0), size=3),
            "dynamic_slice_in_dim: size = 3 does not fit into the 2 rows of x",
        ),
        (
            lambda x: rules.dynamic_update_slice_in_dim(x[:1], x, jnp.int32(0)),
            "dynamic_update_slice_in_dim: an update of length 2 does not fit into the 1 rows of x",
        ),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(call: Callable[[jax.Array], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 3)))


def test_the_parts_of_a_split_have_each_their_cotangent():
    parts, residuals = rules.split.fwd(jnp.arange(5.0), index=2)
    assert [part.shape for part in parts] == [(2,), (3,)]
    with pytest.raises(ValueError, match=r"split: the cotangent of `\[1\]` is float32\[2\]"):
        rules.split.bwd(residuals, (jnp.ones(2), jnp.ones(2)), index=2)
