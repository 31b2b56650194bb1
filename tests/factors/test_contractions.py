"""Every contraction of every structure against its definition on gradients of single examples, in float64."""

import functools
import itertools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import factors
from funcbp._correlation import Geometry
from funcbp.factors import (
    Elementwise,
    Factor,
    Outer,
    Patches,
    Rows,
    Stacked,
    Sum,
    Total,
    Transposed,
)
from funcbp.factors.total import compact
from funcbp.verify._pairs import evaluated

BATCH = 5


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def ids(*shape, size=6, low=-1):
    return np.random.default_rng(1).integers(low, size + 1, shape)


def geometry(n, k, s=1, d=1, e=1, low=0, groups=1):
    outputs = tuple((e * (a - 1) + 1 + 2 * low - d * (b - 1) - 1) // s + 1 for a, b in zip(n, k, strict=True))
    each = (len(n) * (v,) for v in (s, d, e, low))
    return Geometry(n, k, outputs, *each, groups=groups)


def patches(g, inner, outer):
    return Patches(normal(BATCH, *g.inputs, inner), normal(BATCH, *g.outputs, outer), g)


def tied(positions=4, size=6, width=3):
    rows = Rows(ids(BATCH, positions, size=size), normal(BATCH, positions, width), size)
    return Sum((rows, Transposed(Outer(normal(BATCH, 2, width), normal(BATCH, 2, size)))))


def stack(*several):
    return Stacked(jax.tree.map(lambda *leaves: np.stack(leaves), *several))


MAKERS = {
    "outer": lambda: Outer(normal(BATCH, 3), normal(BATCH, 2)),
    "outer, few positions": lambda: Outer(normal(BATCH, 2, 9), normal(BATCH, 2, 8)),
    "outer, many positions": lambda: Outer(normal(BATCH, 3, 4, 3), normal(BATCH, 3, 4, 2)),
    "outer, no positions": lambda: Outer(normal(BATCH, 0, 3), normal(BATCH, 0, 2)),
    "total": lambda: Total(normal(BATCH, 3)),
    "total with positions": lambda: Total(normal(BATCH, 4, 2, 3), 2),
    "scalar total": lambda: Total(normal(BATCH), 0),
    "elementwise": lambda: Elementwise(normal(BATCH, 4, 3), normal(BATCH, 4, 3)),
    "elementwise matrix": lambda: Elementwise(normal(BATCH, 4, 3), normal(BATCH, 4, 3), 2),
    "rows": lambda: Rows(ids(BATCH), normal(BATCH, 3), 6),
    "rows with positions": lambda: Rows(ids(BATCH, 2, 4, size=3), normal(BATCH, 2, 4, 3), 3),
    "rows, few positions": lambda: Rows(ids(BATCH, 3, size=2), normal(BATCH, 3, 8), 2),
    "transposed": lambda: Transposed(Outer(normal(BATCH, 2, 9), normal(BATCH, 2, 8))),
    "transposed rows": lambda: Transposed(Rows(ids(BATCH, 4), normal(BATCH, 4, 3), 6)),
    "tied": tied,
    "tied, many positions": lambda: tied(positions=20),
    "nested sum": lambda: Sum((tied(), Transposed(Transposed(tied(positions=1))))),
    "sum of structures": lambda: Sum(
        (Total(normal(BATCH, 2, 6, 3), 2), Outer(normal(BATCH, 6), normal(BATCH, 3)))
    ),
    "patches": lambda: patches(geometry((5, 4), (3, 2), s=2, low=1), 2, 3),
    "patches, large kernel": lambda: patches(geometry((4,), (3,)), 9, 8),
    "patches, dilated": lambda: patches(geometry((6,), (2,), d=2, e=3, low=-1), 2, 3),
    "patches, groups": lambda: patches(geometry((5,), (3,), low=1, groups=2), 4, 6),
    "stacked": lambda: stack(
        *[Outer(normal(BATCH, 2, 9, seed=i), normal(BATCH, 2, 8, seed=i)) for i in (1, 2)]
    ),
    "stacked twice": lambda: stack(*2 * [stack(*[Rows(ids(BATCH, 3), normal(BATCH, 3, 2), 6)] * 3)]),
}


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def made(name) -> Factor:
    return jax.tree.map(jnp.asarray, MAKERS[name]())


def example_axis(factor: Factor) -> int:
    return 1 + example_axis(factor.of) if isinstance(factor, Stacked) else 0


def part(factor, n):
    """The factor of example n alone, as a batch of one."""
    axis = example_axis(factor)
    return jax.tree.map(lambda a: jax.lax.slice_in_dim(jnp.asarray(a), n, n + 1, axis=axis), factor)


def singly(factor):
    def gradients(factor):
        return [part(factor, n).gradient() for n in range(BATCH)]

    return np.stack(evaluated(gradients, factor))


def flat(factor):
    return singly(factor).reshape(BATCH, -1)


KEY, C = jax.random.key(0), np.array([2.0, 0.0, -1.0, 0.5, 3.0])
PROJECTIONS = 4000


def everything(factor):
    """All contractions in one program: compiling is what takes the time."""
    other = factor.scaled(C)
    fewer = jax.tree.map(lambda a: jnp.take(a, jnp.arange(3), axis=example_axis(factor)), other)
    return {
        "gradient": factor.gradient(),
        "per_example": factor.per_example(),
        "squared_norms": factor.squared_norms(),
        "weighted": factor.weighted(C),
        "shrunk": factor.scaled(0.25).gradient(),
        "inner": factor.inner(other),
        "gram": factor.gram(),
        "gram with fewer": factor.gram(fewer),
        "second_moment": factor.second_moment(),
        "variance": factor.variance(),
        "projected": factor.projected(KEY, PROJECTIONS),
        "scaled, projected": other.projected(KEY, PROJECTIONS),
    }


@functools.cache
def contracted(name):
    with jax.enable_x64(True):
        factor = made(name)
        return factor, singly(factor), evaluated(everything, factor)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * (np.abs(expected).max(initial=0)))


def test_contractions(name):
    factor, each, result = contracted(name)
    g = each.reshape(BATCH, -1)
    assert factor.examples() == BATCH
    assert factor.shape() == each.shape[1:]
    assert_close(result["per_example"], each)
    assert_close(result["gradient"], each.sum(0))
    assert_close(result["squared_norms"], np.square(g).sum(1))
    assert_close(result["weighted"], np.tensordot(C, each, 1))
    assert_close(result["shrunk"], 0.25 * each.sum(0))
    assert_close(result["inner"], C * np.square(g).sum(1))
    assert_close(result["gram"], g @ g.T)
    assert_close(result["gram with fewer"], g @ (C[:3, None] * g[:3]).T)
    assert_close(result["second_moment"], np.square(each).sum(0))
    np.testing.assert_allclose(result["variance"], each.var(0), rtol=1e-10, atol=1e-12)


def test_projections_are_linear_and_keep_inner_products_on_average(name):
    _, each, result = contracted(name)
    g, projected = each.reshape(BATCH, -1), result["projected"]
    assert projected.shape == (BATCH, PROJECTIONS)
    assert_close(result["scaled, projected"], C[:, None] * projected)
    # Var ⟨Pg, Pg′⟩ ≤ 8 ‖g‖² ‖g′‖² / k; six standard deviations.
    lengths = np.linalg.norm(g, axis=1)
    spread = 6 * np.sqrt(8 / PROJECTIONS) * np.outer(lengths, lengths)
    assert (np.abs(np.asarray(projected @ projected.T) - g @ g.T) <= spread + 1e-12).all()


LONG = [pytest.param(name, marks=pytest.mark.long) for name in MAKERS]


@pytest.mark.parametrize("name", ["outer, few positions", "rows with positions", "tied", "patches", *LONG])
def test_all_of_it_over_a_stack(name):
    factor, _, alone = contracted(name)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), factor)
    together = evaluated(jax.vmap(everything), stacked)
    for contraction, one in alone.items():
        assert_close(together[contraction][0], one)


@pytest.mark.parametrize("size", [6, 40])
def test_inner_products_between_structures(size):
    """Exact for every pair of structures of one parameter, in both orders, by either form."""
    several = [
        Rows(ids(BATCH, 4, size=size), normal(BATCH, 4, 3), size),
        Outer(normal(BATCH, 2, size), normal(BATCH, 2, 3)),
        Transposed(Outer(normal(BATCH, 30, 3), normal(BATCH, 30, size))),
        Transposed(Rows(ids(BATCH, 4, size=3), normal(BATCH, 4, size), 3)),
        Total(normal(BATCH, size, 3), 2),
    ]
    several = jax.tree.map(jnp.asarray, several)
    products = jax.jit(lambda: [(a.inner(b), a.gram(b)) for a, b in itertools.product(several, repeat=2)])
    gradients = list(map(flat, several))
    for (inner, gram), (g, h) in zip(products(), itertools.product(gradients, repeat=2), strict=True):
        assert_close(inner, (g * h).sum(1))
        assert_close(gram, g @ h.T)


def test_projections_of_one_parameter_are_one_projection():
    """Whatever the structure, the same key gives the same P."""

    @jax.jit
    def projections(rows, outer):
        table = rows.per_example()
        several = (rows, outer, Elementwise(table, jnp.ones_like(table), 2), Sum((rows, outer)))
        return [factor.projected(KEY, 4) for factor in several]

    rows, outer, dense, both = map(np.asarray, projections(*tied().terms))
    assert_close(rows, dense)
    assert_close(both, rows + outer)


@pytest.mark.parametrize("form", ["expand", "reduce"])
def test_kronecker_factors_are_exact_where_they_should_be(form):
    def fisher(factor):
        return np.einsum("ni,nj->ij", flat(factor), flat(factor))

    def product(factor):
        return np.kron(*factor.kronecker(form))

    one = Outer(jnp.asarray(normal(1, 3)), jnp.asarray(normal(1, 2)))
    np.testing.assert_allclose(product(one), np.outer(one.gradient(), one.gradient()), rtol=1e-12)
    equal = Outer(jnp.ones((BATCH, 3)) * jnp.arange(3.0), jnp.asarray(normal(BATCH, 2)))
    assert_close(product(equal), fisher(equal))
    assert_close(product(Transposed(equal)), fisher(Transposed(equal)))
    positions = Outer(jnp.ones((BATCH, 4, 3)) * jnp.arange(3.0), jnp.asarray(normal(BATCH, 4, 2)))
    if form == "reduce":
        assert_close(product(positions), fisher(positions))
    else:
        assert not np.allclose(product(positions), fisher(positions))
    constant = geometry((4,), (3,))
    conv = Patches(jnp.ones((BATCH, 4, 2)), jnp.asarray(normal(BATCH, 2, 3)), constant)
    if form == "reduce":
        assert_close(product(conv), fisher(conv))


@pytest.mark.parametrize("form", ["expand", "reduce"])
def test_kronecker_factors_by_definition(form):
    a, delta = normal(BATCH, 4, 3), normal(BATCH, 4, 2)
    mine = Outer(jnp.asarray(a), jnp.asarray(delta)).kronecker(form)
    if form == "reduce":
        a, delta = a.mean(1, keepdims=True), delta.sum(1, keepdims=True)
    assert_close(mine.rows, np.einsum("nti,ntj->ij", a, a) / (BATCH * a.shape[1]))
    assert_close(mine.columns, np.einsum("nti,ntj->ij", delta, delta))


def test_patches_unfolded_have_the_same_gradient():
    for name in ("patches", "patches, large kernel", "patches, dilated"):
        factor = made(name)
        gradients = evaluated(lambda f: (f.unfolded().gradient(), f.gradient()), factor)
        assert_close(gradients[0].reshape(factor.shape()), gradients[1])


@pytest.mark.parametrize(
    ("name", "smaller"), [("total with positions", True), ("outer, many positions", True), ("outer", False)]
)
def test_what_is_smaller_is_kept(name, smaller):
    factor = made(name)
    kept = compact(factor)
    assert isinstance(kept, Total) == smaller
    assert_close(kept.per_example(), factor.per_example())
    assert sum(a.size for a in jax.tree.leaves(kept)) <= sum(a.size for a in jax.tree.leaves(factor))


def test_merged_rows_are_read_once():
    factor = made("rows with positions")
    merged = factor.merged()
    assert_close(merged.per_example(), factor.per_example())
    for row in np.asarray(merged.ids):
        read = row[row < factor.size]
        assert len(set(read)) == len(read)


def test_a_factor_of_ones_own_states_only_its_gradient():
    """Here of γ in p = γ² a: everything else comes from the base class."""

    @factors._base.factor()
    class Squared(Factor):
        gain: jax.Array
        delta: jax.Array

        def gradient(self):
            product = 2 * self.gain * self.delta
            return product.sum(tuple(range(product.ndim - 1)))

    own = Squared(jnp.asarray(normal(BATCH, 4, 3)), jnp.asarray(normal(BATCH, 4, 3, seed=1)))
    same = Elementwise(2 * own.gain, own.delta)
    mine, theirs = jax.jit(lambda: (everything(own), everything(same)))()
    for contraction, expected in theirs.items():
        assert_close(mine[contraction], expected)
    assert own.kronecker() is None


def test_examples_of_weight_zero_may_be_anything():
    factor = made("outer")
    broken = Outer(factor.a, factor.delta.at[1].set(jnp.nan).at[2].set(jnp.inf))
    c = jnp.array([1.0, 0.0, 0.0, 2.0, 1.0])
    assert_close(broken.weighted(c), np.asarray(factor.weighted(c)))


@pytest.mark.parametrize(
    "factor",
    [
        Outer(np.ones(3), np.ones(2)),
        Total(np.ones(3)),
        Elementwise(np.ones(3), np.ones(3)),
        Rows(np.array(1), np.ones(3), 4),
        Patches(np.ones((4, 1)), np.ones((2, 1)), geometry((4,), (3,))),
        Outer(np.ones((4, 3)), np.ones((5, 3))),
        Transposed(Total(np.ones((2, 3)), 2)),
        Stacked(Total(np.ones((2, 3)))),
    ],
    ids=lambda f: type(f).__name__,
)
def test_without_an_axis_of_examples_there_is_a_gradient_and_no_more(factor):
    for contraction in ("per_example", "squared_norms", "second_moment", "gram"):
        with pytest.raises(ValueError, match="needs an axis of examples"):
            getattr(factor, contraction)()


def test_what_has_no_delta_says_so():
    @factors._base.factor()
    class Opaque(Factor):
        x: jax.Array

    with pytest.raises(TypeError, match="Opaque has no field `delta`"):
        Opaque(jnp.ones(3)).squared_norms()


def test_terms_must_have_the_same_examples():
    with pytest.raises(ValueError, match=r"got \[2, 3\] of them"):
        Sum((Total(jnp.ones((2, 1))), Total(jnp.ones((3, 1))))).examples()


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="`form` must be 'expand' or 'reduce', got 'both'"):
        made("outer").kronecker("both")
    with pytest.raises(ValueError, match="with 2 groups of channels a kernel is no matrix"):
        made("patches, groups").unfolded()
    with pytest.raises(TypeError, match="must be Stacked, too, got Total"):
        made("stacked").inner(made("total"))


def test_half_precision_is_contracted_in_float32():
    ones = jnp.ones((1, 4096, 1), jnp.bfloat16)
    for factor in (
        Outer(ones, ones),
        Total(ones),
        Elementwise(ones, ones),
        Rows(jnp.zeros((1, 4096), int), ones, 1),
    ):
        contract = jax.jit(lambda f: (f.squared_norms(), f.weighted(np.ones(1)), f.second_moment()))
        squares, weighted, moment = contract(factor)
        assert squares.dtype == jnp.float32
        assert (squares.item(), weighted.item(), moment.item()) == (4096**2, 4096, 4096**2)
