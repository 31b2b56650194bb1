"""Every rule whose structure is stated: the operator is what `jax.jacrev` gives, and `jax.jacfwd`."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Rule, catalogue, jacobian, rules
from funcbp.jacobians import (
    BlockDiagonal,
    Commutation,
    Diagonal,
    DiagonalPlusLowRank,
    Kronecker,
    MatrixFree,
    Product,
    TensorProduct,
)
from funcbp.jacobians._rules import has_structure
from funcbp.verify._cases import Variant, axis_sizes, draw
from funcbp.verify._pairs import evaluated

# One of every way to find a structure by default: compiling all of them takes minutes.
FEW = {
    "relu",
    "swiglu",
    "softmax",
    "log_softmax",
    "logsumexp",
    "dense",
    "matmul",
    "layer_norm",
    "rms_norm",
    "l2_normalize",
    "batch_norm_inference",
    "sandwich",
    "inv",
    "gram",
    "outer_product",
    "diagonal_product",
    "matrix_transpose",
    "embedding",
    "diagonal_matrix",
    "kl_divergence",
    "quadratic_form",
    "crf_log_partition",
    "straight_through_round",
}
STATED = [
    pytest.param(
        rule, k, setting, id=f"{name}-{argument.name}-{n}", marks=() if name in FEW else pytest.mark.long
    )
    for name, rule in catalogue().items()
    for n, setting in enumerate(rule.settings)
    for k, argument in enumerate(rule.signature.arguments)
    if argument.floating and has_structure(rule, argument.name)
]


def arguments(rule: Rule, setting: Any, seed: int = 0) -> list[jax.Array]:
    variant = Variant(rule, setting, rule.signature.arguments)
    values = draw(variant, axis_sizes(rule), np.random.default_rng(seed), 1)
    return [jnp.asarray(x[0]) for x in values]


def assert_dense(actual: jax.Array, expected: jax.Array) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = max(1.0, float(np.abs(np.asarray(expected)).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-13 * scale)


@pytest.mark.parametrize(("rule", "position", "setting"), STATED)
def test_stated_structure_is_the_jacobian(rule: Rule, position: int, setting: Any, x64: None):
    args, options = arguments(rule, setting), dict(setting)

    @jax.jit
    def found(args: list[jax.Array], v: jax.Array, u: jax.Array) -> Any:
        operator = jacobian(rule, *args, argnum=position, **options)
        return operator, operator.as_tensor(), operator @ v, u @ operator

    def expected(args: list[jax.Array]) -> Any:
        backward = jax.jacrev(lambda *a: rule(*a, **options), position)(*args)
        return backward, jax.jacfwd(lambda *a: rule.primal(*a, **options), position)(*args)

    rng = np.random.default_rng(1)
    out = jax.eval_shape(lambda *a: rule.primal(*a, **options), *args)
    v, u = (jnp.asarray(rng.standard_normal(shape)) for shape in (args[position].shape, out.shape))
    operator, tensor, pushed, pulled = found(args, v, u)
    backward, forward = evaluated(expected, args)
    assert_dense(tensor, backward)
    if not rule.surrogate:
        assert_dense(tensor, forward)
    assert_dense(pushed, np.tensordot(backward, v, v.ndim))
    assert_dense(pulled, np.tensordot(u, backward, u.ndim))
    if not {"keepdims", "axis", "reduction", "dropout_rate"} & options.keys():
        assert not isinstance(operator, MatrixFree), "the table promises a structure"


@pytest.mark.parametrize(
    ("name", "argument", "kind", "written"),
    [
        ("tanh", "p", Diagonal, "Diag(tanh′(p))"),
        ("dense", "x", Kronecker, "wᵀ ⊗ I₆"),
        ("dense", "w", Kronecker, "I₇ ⊗ x"),
        ("dense", "b", Kronecker, "I₇ ⊗ 𝟏"),
        ("softmax", "p", BlockDiagonal, "⊕₂[Diag(q) − q qᵀ]"),
        ("layer_norm", "x", BlockDiagonal, "⊕₆[r Diag(gain) (I − 𝟏𝟏ᵀ/n − x̂x̂ᵀ/n)]"),
        ("layer_norm", "gain", Product, None),
        ("matrix_transpose", "x", Commutation, None),
        ("embedding", "table", TensorProduct, "I₇ ⊗ onehot(ids)"),
        ("cholesky", "s", MatrixFree, "[∂cholesky/∂s, matrix-free]"),
    ],
)
def test_structure_and_formula(name: str, argument: str, kind: type, written: str | None):
    rule = catalogue()[name]
    args = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in arguments(rule, {})]
    position = [a.name for a in rule.signature.arguments].index(argument)
    operator = jacobian(rule, *args, argnum=position)
    assert isinstance(operator, kind)
    assert operator.dtype == jnp.float32
    if written is not None:
        assert str(operator) == written


def test_at_ties_the_first_maximum_is_selected(x64: None):
    def both(x: jax.Array) -> Any:
        operator = jacobian(rules.max_pool, x, window=3, strides=1, padding="SAME")
        return operator.as_tensor(), jax.jacrev(
            lambda x: rules.max_pool(x, window=3, strides=1, padding="SAME")
        )(x)

    assert_dense(*evaluated(both, jnp.ones((1, 2, 3, 1))))


@pytest.mark.long
@pytest.mark.parametrize("rule", ["avg_pool", "max_pool", "conv_general"])
@pytest.mark.parametrize("lengths", [(5,), (3, 2, 3)], ids=["1d", "3d"])
def test_any_number_of_spatial_axes(rule: str, lengths: tuple[int, ...], x64: None):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *lengths, 2)))
    w = jnp.asarray(rng.standard_normal((*(2,) * len(lengths), 1, 2)))
    args = [x, w] if rule == "conv_general" else [x]
    one = catalogue()[rule]

    def both(args: list[jax.Array]) -> Any:
        which = len(args) - 1
        return jacobian(one, *args, argnum=which).as_tensor(), jax.jacrev(one, which)(*args)

    assert_dense(*evaluated(both, args))


def test_softmax_is_a_diagonal_and_a_rank_one_matrix():
    operator = jacobian(rules.softmax, jnp.array([0.0, 1.0]))
    assert isinstance(operator, DiagonalPlusLowRank)
    assert operator.u.shape == (2, 1)


def test_axes_of_equal_length_do_not_make_examples(x64: None):
    """The transition matrix is no batch, even where there are as many examples as states."""
    rng = np.random.default_rng(0)
    unary, transition = (
        jnp.asarray(rng.standard_normal((3, 3, 2, 3))),
        jnp.asarray(rng.standard_normal((3, 3))),
    )

    def both(unary: jax.Array, transition: jax.Array) -> Any:
        operator = jacobian(rules.crf_log_partition, unary, transition, argnum=1)
        return operator.as_tensor(), jax.jacrev(rules.crf_log_partition, 1)(unary, transition)

    assert_dense(*evaluated(both, unary, transition))


def test_as_many_classes_as_positions_do_not_make_examples(x64: None):
    """A number for every example and class: the classes are coupled, if there are as many as positions."""
    rng = np.random.default_rng(0)
    p, t = (jnp.asarray(rng.standard_normal((5, 2, 3))) for _ in range(2))
    options: Any = {"reduction": "none", "ignore_background": True}

    def both(p: jax.Array, t: jax.Array) -> Any:
        operator = jacobian(rules.dice_loss, p, t, **options)
        return operator.as_tensor(), jax.jacrev(lambda p: rules.dice_loss(p, t, **options))(p)

    assert_dense(*evaluated(both, p, t))


def test_what_has_no_structure_is_applied_by_the_rules_own_backward_pass(x64: None):
    s = jnp.asarray([[2.0, 0.5], [0.5, 1.0]])
    operator = jacobian(rules.cholesky, s)
    expected = jax.jacrev(rules.cholesky)(s)
    assert_dense(operator.as_tensor(), expected)
    assert_dense(operator.T.as_tensor(), expected.transpose(2, 3, 0, 1))
    with pytest.raises(ValueError, match=r"logdet.*slogdet"):
        operator.logdet()


def test_several_outputs_and_integers_are_refused():
    with pytest.raises(TypeError, match=r"qr returns several arrays.*picks one"):
        jacobian(rules.qr, jnp.eye(2))
    with pytest.raises(TypeError, match="`ids` has dtype int32"):
        jacobian(rules.embedding, jnp.ones((3, 2)), jnp.array([0, 1]), argnum=1)
    with pytest.raises(ValueError, match="argnum must be from 0 to 0, got 1"):
        jacobian(rules.relu, jnp.ones(3), argnum=1)
