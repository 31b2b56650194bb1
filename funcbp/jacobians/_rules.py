"""The structures of the catalogue's rules: which rule has which Jacobian, by which argument.

What is read off is read off the rule's own backward pass: the slope of an elementwise function is what a
cotangent of ones comes back as, and so is the gradient of every example's number. A rule that is not in the
table is applied by forward mode and by its backward pass, and nothing is claimed about it.
"""

import dataclasses
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import jax
from jax import numpy as jnp

from .._rule import Rule
from ._names import Name
from ._operator import Operator, size
from ._rows import functionals, log_softmax_rows, normalized_rows, ones, softmax_rows
from .block_diagonal import blocks
from .diagonal import Diagonal
from .kronecker import Kronecker, from_left, from_right
from .matrix_free import MatrixFree
from .product import compose
from .selection import Commutation, Selection

__all__ = ["Call", "has_structure", "of_rule"]


@dataclasses.dataclass(frozen=True)
class _RuleMaps:
    """Derivatives of a rule: forward mode of its primal, and its backward pass."""

    rule: Rule
    static: tuple[tuple[str, Hashable], ...]
    position: int

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Forward mode."""

        def at(x: jax.Array) -> jax.Array:
            return self.rule.primal(
                *args[: self.position], x, *args[self.position + 1 :], **dict(self.static)
            )

        return jax.jvp(at, (args[self.position],), (x_t,))[1]

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """The rule's backward pass."""
        _, residuals = self.rule.fwd(*args, **dict(self.static))
        return self.rule.bwd(residuals, y_ct, **dict(self.static))[self.position]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A rule at its arguments, to be differentiated by one of them.

    Attributes:
        rule: the rule.
        args: its arrays; None for one that is left out.
        static: its options.
        position: of the argument.
        names: what the arguments are called.
    """

    rule: Rule
    args: tuple[Any, ...]
    static: dict[str, Any]
    position: int
    names: tuple[str, ...]

    @property
    def x(self) -> jax.Array:
        """The argument."""
        return self.args[self.position]

    @property
    def argument(self) -> str:
        """What the rule calls the argument."""
        return self.rule.signature.arguments[self.position].name

    @property
    def name(self) -> str:
        """Of the derivative."""
        if sum(a.floating for a in self.rule.signature.arguments) == 1:
            return f"{self.rule.name}′({self.names[self.position]})"
        return f"∂{self.rule.name}/∂{self.names[self.position]}"

    @cached_property
    def done(self) -> tuple[jax.Array, Any]:
        """Output and residuals."""
        return self.rule.fwd(*self.args, **self.static)

    @property
    def out(self) -> jax.Array:
        """The output."""
        return self.done[0]

    @cached_property
    def gradient(self) -> jax.Array:
        """What a cotangent of ones comes back as."""
        return self.rule.bwd(self.done[1], jnp.ones_like(self.out), **self.static)[self.position]

    @cached_property
    def push_of_ones(self) -> jax.Array:
        """What a tangent of ones goes to."""
        return self.maps.push(self.args, jnp.ones_like(self.x))

    @property
    def maps(self) -> _RuleMaps:
        """How the derivative is applied."""
        return _RuleMaps(self.rule, tuple(sorted(self.static.items())), self.position)

    def named(self, name: str) -> tuple[jax.Array, str]:
        """Another argument, and what it is called."""
        place = [a.name for a in self.rule.signature.arguments].index(name)
        return self.args[place], self.names[place]


Builder = Callable[[Call], Operator | None]


def of_rule(call: Call) -> Operator:
    """The Jacobian of a rule by one of its arguments."""
    if not hasattr(call.out, "shape"):
        raise TypeError(
            f"jacobian: {call.rule.name} returns several arrays; differentiate a function that picks one, "
            f"such as lambda *args: rules.{call.rule.name}(*args)[0]."
        )
    builder = _builder(call)
    structured = builder(call) if builder else None
    if structured is not None:
        return structured
    name = f"∂{call.rule.name}/∂{call.names[call.position]}"
    return MatrixFree(call.args, call.maps, call.x.shape, call.out.shape, name)


def has_structure(rule: Rule, argument: str) -> bool:
    """Whether the table knows the structure of a rule by the argument of that name."""
    return rule.name in _ELEMENTWISE or (rule.name, argument) in _TABLE or rule.name in _ROWS


def _builder(call: Call) -> Builder | None:
    if (call.rule.name, call.argument) in _TABLE:
        return _TABLE[call.rule.name, call.argument]
    if call.rule.name in _ELEMENTWISE:
        return _elementwise
    return _reduction if call.rule.name in _ROWS else None


def _elementwise(call: Call) -> Operator | None:
    """Diag(σ′)."""
    if call.x.shape != call.out.shape:
        return None
    return Diagonal(call.gradient, call.x.shape, call.name)


def _reduction(call: Call) -> Operator | None:
    """⟨g_n, dx_n⟩ for every example, the axes of an example being those that the output has not."""
    if call.static.get("keepdims"):
        return None
    axis = call.static.get("axis", -1)
    count, given = (
        call.x.ndim,
        range(call.x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis,
    )
    reduced = {one % count for one in given}
    if "axis" not in call.static:
        reduced = set(range(call.out.ndim, count))
    order = (*(k for k in range(count) if k not in reduced), *sorted(reduced))
    if call.out.shape != tuple(call.x.shape[k] for k in order[: count - len(reduced)]):
        return None
    rows = functionals(call.gradient.transpose(order), call.out.shape, call.name)
    return rows if order == tuple(range(count)) else compose(rows, Commutation(call.x.shape, order))


def _along(call: Call, make: Callable[[jax.Array], Operator], rows: jax.Array) -> Operator | None:
    """Rows along the option `axis`: K, the rows along the last axis, and K back."""
    axis = call.static["axis"]
    if not isinstance(axis, int):
        return None
    order = [k for k in range(rows.ndim) if k != axis % rows.ndim]
    order.append(axis % rows.ndim)
    if order == list(range(rows.ndim)):
        return make(rows)
    turn = Commutation(rows.shape, tuple(order))
    return compose(turn.T, compose(make(turn.push(rows)), turn))


def _softmax(call: Call) -> Operator | None:
    factor = 1 / call.static["temperature"]
    return _along(call, lambda q: softmax_rows(q, "q", factor), call.out)


def _log_softmax(call: Call) -> Operator | None:
    return _along(call, lambda q: log_softmax_rows(q, "q"), jnp.exp(call.out))


def _layer_norm(call: Call) -> Operator:
    x, gain, _, mean, r = call.done[1]
    return normalized_rows(r * (x - mean), r, gain, x.shape[-1], centered=True)


def _rms_norm(call: Call) -> Operator:
    x, gain, r = call.done[1]
    return normalized_rows(r * x, r, gain, x.shape[-1], centered=False)


def _l2_normalize(call: Call) -> Operator | None:
    x, r = call.done[1]
    if call.static["axis"] % x.ndim != x.ndim - 1:
        return None
    return normalized_rows(r * x, r, None, 1, centered=False)


def _gain(call: Call) -> Operator:
    """dy_n = x̂_n ⊙ dγ: linear in γ, so that a tangent of ones goes to x̂."""
    rows = call.out.shape[: call.out.ndim - call.x.ndim]
    scaled = Diagonal(call.push_of_ones, call.out.shape, call.name)
    return compose(scaled, ones(rows, call.x.shape, call.out.dtype))


def _bias(call: Call) -> Operator:
    """1 dbᵀ."""
    return ones(call.out.shape[: call.out.ndim - call.x.ndim], call.x.shape, call.out.dtype)


def _by_input(weight: str) -> Builder:
    """dp = dx W."""

    def build(call: Call) -> Operator:
        w, name = call.named(weight)
        return from_right(w, call.x.shape[:-1], name=name)

    return build


def _by_weight(call: Call) -> Operator:
    """dp = x dW."""
    x, name = call.named("x")
    return from_left(x, call.x.shape[1:], name=name)


def _matmul(call: Call) -> Operator:
    """dc = da b + a db."""
    a, b = call.args
    if call.position == 0:
        return blocks(a.shape[:-2], lambda b: from_right(b, a.shape[-2:-1], name=call.names[1]), b)
    return blocks(a.shape[:-2], lambda a: from_left(a, b.shape[-1:], name=call.names[0]), a)


def _sandwich(call: Call) -> Operator:
    """dZ = dA X B + A dX B + A X dB."""
    a, x, b = call.args
    names = [Name.of(name) for name in call.names]

    def one(a: jax.Array, x: jax.Array, b: jax.Array) -> Operator:
        (m, n), (k, j) = a.shape, b.shape
        if call.position == 0:
            return Kronecker(None, x @ b, (m,), (n,), (m,), (j,), right_name=names[1] @ names[2])
        if call.position == 1:
            return Kronecker(a, b, (n,), (k,), (m,), (j,), names[0], names[2])
        return Kronecker(a @ x, None, (k,), (j,), (m,), (j,), names[0] @ names[1])

    return blocks(a.shape[:-2], one, a, x, b)


def _inverse(call: Call) -> Operator:
    """dZ = -Z dX Z."""
    name = Name(f"{call.names[0]}⁻¹", f"{call.names[0]}⁻ᵀ")

    def one(z: jax.Array) -> Operator:
        n = z.shape[-1:]
        return -Kronecker(z, z, n, n, n, n, name, name)

    return blocks(call.x.shape[:-2], one, call.out)


def _gram(call: Call) -> Operator:
    """dZ = dXᵀ X + Xᵀ dX = (K + I) (Xᵀ dX)."""

    def one(x: jax.Array) -> Operator:
        right = from_left(x.T, x.shape[-1:], name=Name.of(call.names[0]).T.text)
        return right + compose(Commutation(right.out_shape), right)

    return blocks(call.x.shape[:-2], one, call.x)


def _outer_product(call: Call) -> Operator:
    """dZ = dx yᵀ + x dyᵀ."""
    x, y = call.args

    def one(x: jax.Array, y: jax.Array) -> Operator:
        name = Name.of(call.names[1 - call.position])
        if call.position == 0:
            return Kronecker(None, y[None], x.shape, (), x.shape, y.shape, right_name=name.T)
        return Kronecker(x[:, None], None, (), y.shape, x.shape, y.shape, name)

    return blocks(x.shape[:-1], one, x, y)


def _scaled_rows(call: Call) -> Operator:
    """dZ = Diag(d) dX: every row by its number."""
    d, name = call.named("d")
    return Diagonal(jnp.broadcast_to(d[..., None], call.x.shape), call.x.shape, f"{name} 𝟏ᵀ")


def _transposition(call: Call) -> Operator:
    """dZ = dXᵀ."""
    count = call.x.ndim
    return Commutation(call.x.shape, (*range(count - 2), count - 1, count - 2))


def _moved(call: Call) -> Operator | None:
    """A linear rule that moves entries, read off where it moves their numbers (0: out of nowhere)."""
    count = size(call.x.shape)
    if count > 2 ** jnp.finfo(call.x.dtype).nmant:
        return None  # numbers that are not exact in this dtype
    numbers = jnp.arange(1, count + 1, dtype=call.x.dtype).reshape(call.x.shape)
    args = [*call.args[: call.position], numbers, *call.args[call.position + 1 :]]
    found = call.rule.primal(*args, **call.static).ravel()
    index = jnp.where(found == 0, count, found - 1).astype(int)
    return Selection(index, call.x.shape, call.out.shape, call.rule.name)


_ELEMENTWISE_NAMES = """
    identity relu relu6 leaky_relu elu celu selu sigmoid log_sigmoid hard_sigmoid sparse_sigmoid tanh
    hard_tanh soft_sign softplus squareplus sparse_plus silu hard_silu mish gelu exp expm1 log log1p
    log1mexp logit sqrt rsqrt cbrt reciprocal square power absolute sin cos tan arcsin arccos arctan sinh
    cosh arcsinh arccosh arctanh erf erfc swiglu geglu reglu logaddexp where masked_fill dropout clip
    stop_gradient reverse_gradient straight_through_round straight_through_sign straight_through_clip
    straight_through_step sigmoid_binary_cross_entropy sigmoid_focal_loss squared_error l2_loss
    absolute_error quantile_loss huber_loss log_cosh hinge_loss normal_logpdf laplace_logpdf cauchy_logpdf
    logistic_logpdf student_t_logpdf gamma_logpdf beta_logpdf normal_sample bernoulli_logpmf
    poisson_logpmf hadamard
"""
# One number for every example; where the rule has no option `axis`, the examples are the output's axes.
_ROWS_NAMES = """
    logsumexp logmeanexp softmax_entropy maxout sum mean prod max min var std softmax_cross_entropy
    safe_softmax_cross_entropy softmax_cross_entropy_with_integer_labels cosine_similarity cosine_distance
    kl_divergence perceptron_loss multiclass_hinge_loss multiclass_perceptron_loss
    softmax_fenchel_young_loss det logdet_positive_definite logdet_gram linear_form bilinear_product
    quadratic_form gram_form gram_product_form trace trace_product trace_sandwich trace_quadratic
    trace_inverse inverse_form vector_norm frobenius_norm nuclear_norm operator_norm least_squares_cost
    categorical_entropy dirichlet_logpdf
"""
_ELEMENTWISE, _ROWS = frozenset(_ELEMENTWISE_NAMES.split()), frozenset(_ROWS_NAMES.split())
_TABLE: dict[tuple[str, str], Builder] = {
    ("dense", "x"): _by_input("w"),
    ("dense", "w"): _by_weight,
    ("dense", "b"): _bias,
    ("matmul", "a"): _matmul,
    ("matmul", "b"): _matmul,
    ("low_rank_adapter", "w"): _by_weight,
    ("sandwich", "a"): _sandwich,
    ("sandwich", "x"): _sandwich,
    ("sandwich", "b"): _sandwich,
    ("inv", "x"): _inverse,
    ("gram", "x"): _gram,
    ("outer_product", "x"): _outer_product,
    ("outer_product", "y"): _outer_product,
    ("diagonal_product", "x"): _scaled_rows,
    ("matrix_transpose", "x"): _transposition,
    ("softmax", "p"): _softmax,
    ("log_softmax", "p"): _log_softmax,
    ("layer_norm", "x"): _layer_norm,
    ("rms_norm", "x"): _rms_norm,
    ("l2_normalize", "x"): _l2_normalize,
    ("layer_norm", "gain"): _gain,
    ("rms_norm", "gain"): _gain,
    ("batch_norm", "gain"): _gain,
    ("batch_norm_inference", "gain"): _gain,
    ("group_norm", "gain"): _gain,
    ("instance_norm", "gain"): _gain,
    ("prelu", "slope"): _gain,
    ("prelu", "p"): _elementwise,
    ("batch_norm_inference", "x"): _elementwise,
    ("layer_norm", "bias"): _bias,
    ("batch_norm", "bias"): _bias,
    ("batch_norm_inference", "bias"): _bias,
    ("group_norm", "bias"): _bias,
    ("instance_norm", "bias"): _bias,
    **{
        (name, argument): _moved
        for name, argument in (
            ("flip", "x"),
            ("roll", "x"),
            ("take", "x"),
            ("take_along_axis", "x"),
            ("embedding", "table"),
            ("dynamic_slice_in_dim", "x"),
            ("vectorize", "x"),
            ("commutation", "v"),
            ("diagonal_part", "x"),
            ("diagonal_matrix", "d"),
            ("tril", "x"),
            ("triu", "x"),
            ("symmetric_from_triangle", "v"),
            ("toeplitz_matrix", "t"),
        )
    },
}
