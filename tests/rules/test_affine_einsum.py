"""`einsum` over axes of different lengths, and subscripts that it refuses."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

LENGTHS = {"b": 2, "i": 3, "j": 4, "k": 5, "l": 6}
SUBSCRIPTS = [
    "bij,bjk->bik",
    "bij,jk->kbi",
    "ij,bkj->kbi",
    "bi,bij->j",
    "bij,bij->b",
    "bij,kl->lk",
    "b,ijk->bikj",
    "ij,->ji",
    ",->",
    "bij,bkj->",
]


def test_cotangents_are_those_of_autodiff():
    def both(x, y, ct, subscripts):
        ours = rules.einsum.bwd((x, y), ct, subscripts=subscripts)
        return ours, at_once.vjp(lambda x, y: jnp.einsum(subscripts, x, y), x, y)[1](ct)

    rng, cases = np.random.default_rng(0), []
    for subscripts in SUBSCRIPTS:
        arrays, out = subscripts.split("->")
        shapes = [tuple(LENGTHS[i] for i in one) for one in (*arrays.split(","), out)]
        cases.append(tuple(jnp.asarray(rng.standard_normal(s), "float32") for s in shapes))
    run = jax.jit(lambda cases: [both(*c, s) for c, s in zip(cases, SUBSCRIPTS, strict=True)])
    for subscripts, (ours, expected) in zip(SUBSCRIPTS, run(cases), strict=True):
        for mine, true in zip(ours, expected, strict=True):
            np.testing.assert_allclose(mine, true, rtol=1e-4, atol=1e-5, err_msg=subscripts)


def test_an_index_of_one_array_alone_comes_back_along_its_whole_length():
    x, y = jnp.ones((2, 3)), jnp.arange(4.0)
    x_ct, y_ct = rules.einsum.bwd((x, y), jnp.array([1.0, 10.0]), subscripts="ij,k->i")
    np.testing.assert_array_equal(x_ct, [[6.0] * 3, [60.0] * 3])
    np.testing.assert_array_equal(y_ct, [33.0] * 4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sum_of_many_is_accumulated_in_float32(dtype: str):
    ones = jnp.ones((2, 4096), dtype)  # 16 bits stop counting at 256, or at 2048
    assert rules.einsum(ones, ones, subscripts="bi,bi->b").tolist() == [4096, 4096]
    assert rules.einsum(ones, ones[:, 0], subscripts="bi,b->b").tolist() == [4096, 4096]


@pytest.mark.parametrize(
    ("subscripts", "message"),
    [
        ("ij,jk", "must be like 'ij,jk->ik'"),
        ("ij,jk,kl->il", "must be like 'ij,jk->ik'"),
        ("...j,jk->k", "must be like 'ij,jk->ik'"),
        ("ijk,jk->i", r"`x` has shape \(2, 3\), but `subscripts` name it 'ijk'"),
        ("ij,ik->jk", "'i' in 'ij,ik->jk' has length 2 in `x` and 3 in `y`"),
        ("ij,kk->i", "'kk' .* has an index twice; take the diagonal first"),
        ("ij,jk->ii", "'ii' .* has an index twice"),
        ("ij,jk->il", "has 'l', which no array has"),
    ],
)
def test_subscripts_that_do_not_fit_are_refused(subscripts: str, message: str):
    y = jnp.ones((3, 3) if "kk" in subscripts else (3, 5))
    with pytest.raises(ValueError, match=message):
        rules.einsum(jnp.ones((2, 3)), y, subscripts=subscripts)
