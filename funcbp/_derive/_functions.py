"""Elementwise functions: a line each says how it is written, computed and differentiated."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from ._algebra import add, constant, hadamard, ones, power, scale, split, zero
from ._choices import compare, select
from ._nodes import Node, Operation, intern
from ._predicates import constant_value, is_zero
from ._scalars import Scalar

__all__ = ["FUNCTIONS", "NAMED", "Function", "apply", "general_power", "logaddexp"]

Derivative = Callable[[Node, Node], Node]  # of the argument x and the value y


class Function(Operation):
    """A function of one argument, applied to every element."""

    elementwise = True
    rule = "chain rule ⊙"

    def __init__(
        self,
        name: str,
        text: str,
        latex: str,
        python: str,
        derivative: Derivative,
        *,
        prime: bool,
        positive: bool,
    ) -> None:
        self.name, self.text, self.latex, self.template = name, text, latex, python
        self.derivative, self.positive = derivative, positive
        self.constant = name in ("sign", "is_finite", "stop", "floor", "ceil", "round")
        self.prime = _Prime(self) if prime else None

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        x = node.args[0]
        slope = intern(self.prime, (x,), None, x.shape) if self.prime else self.derivative(x, node)
        return hadamard(slope, tangent)

    def show(self, node, writer, /):
        if self.name == "abs":
            return writer.absolute(node.args[0])
        return writer.function(writer.pick(self.text, self.latex), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return self.template.format(*arguments)


class _Prime(Operation):
    """The derivative of a function, as a symbol: σ′."""

    elementwise = True

    def __init__(self, function: Function) -> None:
        self.function, self.name = function, function.name + "′"

    def differential(self, node: Node, index: int, tangent: Node, /) -> Node:
        raise NotImplementedError(f"the second derivative of {self.function.name}")

    def show(self, node, writer, /):
        return writer.function(writer.pick(self.function.text + "′", self.function.latex + "'"), node.args)

    def expanded(self, node: Node, /) -> Node:
        x = node.args[0]
        return self.function.derivative(x, intern(self.function, (x,), None, x.shape))


def _sum(x: Node, value: int | Fraction, sign: int = 1) -> Node:
    """sign · x + value."""
    return add(scale(sign, x), constant(value, x.shape))


def _sigmoid(x: Node) -> Node:
    return apply("sigmoid", x)


def _where_positive(x: Node, yes: Node, no: Node, relation: str = ">") -> Node:
    return select(compare(relation, x, zero(x.shape)), yes, no)


def _silu(x: Node, _y: Node) -> Node:
    s = _sigmoid(x)
    return hadamard(s, add(ones(x.shape), hadamard(x, _sum(s, 1, -1))))


FUNCTIONS: dict[str, Function] = {}


def _define(
    name: str,
    derivative: Derivative,
    python: str = "",
    text: str = "",
    latex: str = "",
    *,
    prime: bool = False,
    positive: bool = False,
) -> None:
    text = text or name
    latex = latex or rf"\operatorname{{{text}}}"
    python = python or f"jnp.{name}({{}})"
    FUNCTIONS[name] = Function(name, text, latex, python, derivative, prime=prime, positive=positive)


_ROOT_PI = Fraction(2 / math.sqrt(math.pi))

_define("exp", lambda _x, y: y, latex=r"\exp", positive=True)
_define("exp2", lambda _x, y: scale(Fraction(math.log(2)), y), positive=True)
_define("log", lambda x, _y: power(x, -1), latex=r"\log")
_define("log1p", lambda x, _y: power(_sum(x, 1), -1))
_define("expm1", lambda _x, y: _sum(y, 1))
_define("sin", lambda x, _y: apply("cos", x), latex=r"\sin")
_define("cos", lambda x, _y: scale(-1, apply("sin", x)), latex=r"\cos")
_define("tan", lambda _x, y: _sum(power(y, 2), 1), latex=r"\tan", prime=True)
_define("sinh", lambda x, _y: apply("cosh", x), latex=r"\sinh")
_define("cosh", lambda x, _y: apply("sinh", x), latex=r"\cosh", positive=True)
_define("tanh", lambda _x, y: _sum(power(y, 2), 1, -1), latex=r"\tanh", prime=True)
_define("arcsin", lambda x, _y: power(_sum(power(x, 2), 1, -1), Fraction(-1, 2)))
_define("arccos", lambda x, _y: scale(-1, power(_sum(power(x, 2), 1, -1), Fraction(-1, 2))))
_define("arctan", lambda x, _y: power(_sum(power(x, 2), 1), -1))
_define("arcsinh", lambda x, _y: power(_sum(power(x, 2), 1), Fraction(-1, 2)))
_define("arctanh", lambda x, _y: power(_sum(power(x, 2), 1, -1), -1))
_define("cbrt", lambda x, y: scale(Fraction(1, 3), hadamard(y, power(x, -1))))
_define(
    "erf", lambda x, _y: scale(_ROOT_PI, apply("exp", scale(-1, power(x, 2)))), "jax.scipy.special.erf({})"
)
_define(
    "erfc", lambda x, _y: scale(-_ROOT_PI, apply("exp", scale(-1, power(x, 2)))), "jax.scipy.special.erfc({})"
)
_define("lgamma", lambda x, _y: apply("digamma", x), "jax.scipy.special.gammaln({})", "lnΓ", r"\ln\Gamma")
_define("digamma", lambda x, _y: apply("trigamma", x), "jax.scipy.special.digamma({})", "ψ", r"\psi")
_define("trigamma", lambda x, _y: zero(x.shape), "jax.scipy.special.polygamma(1, {})", "ψ₁", r"\psi_1")
_define("sign", lambda x, _y: zero(x.shape))
_define("is_finite", lambda x, _y: zero(x.shape), "jnp.isfinite({})", "finite")
_define("stop", lambda x, _y: zero(x.shape), "jax.lax.stop_gradient({})", "stop")
_define("floor", lambda x, _y: zero(x.shape))
_define("ceil", lambda x, _y: zero(x.shape))
_define("round", lambda x, _y: zero(x.shape))
_define("abs", lambda x, _y: _where_positive(x, ones(x.shape), scale(-1, ones(x.shape)), "≥"), prime=True)
_define(
    "sigmoid",
    lambda _x, y: hadamard(y, _sum(y, 1, -1)),
    "jax.nn.sigmoid({})",
    "σ",
    r"\sigma",
    prime=True,
    positive=True,
)
_define("relu", lambda x, _y: compare(">", x, zero(x.shape)), "jax.nn.relu({})", prime=True)
_define(
    "relu6",
    lambda x, _y: hadamard(compare(">", x, zero(x.shape)), compare("<", x, constant(6, x.shape))),
    "jax.nn.relu6({})",
    prime=True,
)
_define("softplus", lambda x, _y: _sigmoid(x), "jax.nn.softplus({})", positive=True)
_define("log_sigmoid", lambda x, _y: _sigmoid(scale(-1, x)), "jax.nn.log_sigmoid({})", "log σ", r"\log\sigma")
_define("silu", _silu, "jax.nn.silu({})", prime=True)
_define("elu", lambda x, y: _where_positive(x, ones(x.shape), _sum(y, 1)), "jax.nn.elu({})", prime=True)
_define(
    "leaky_relu",
    lambda x, _y: _where_positive(x, ones(x.shape), constant(Fraction(1, 100), x.shape), "≥"),
    "jax.nn.leaky_relu({})",
    "leaky_relu",
    r"\operatorname{leaky\_relu}",
    prime=True,
)
NAMED = ("relu", "relu6", "softplus", "log_sigmoid", "silu", "elu", "leaky_relu")
"""Functions of `jax.nn` that the tracer recognizes whole."""

_simplifications: dict[str, Callable[[Node], Node | None]] = {}


def apply(name: str, x: Node) -> Node:
    """A function of the table, applied to every element of a node."""
    from ._softmax import log_of  # an operation may know its own logarithm

    if (
        name in ("floor", "ceil", "round", "sign", "stop")
        and constant_value(x) is not None
        and name == "stop"
    ):
        return x
    if name == "log" and (found := log_of(x)) is not None:
        return found
    if name == "exp" and is_zero(x):
        return ones(x.shape)
    if name == "abs":
        coefficient, unit = split(x)
        from ._predicates import positive

        if positive(unit):
            return scale(Scalar(abs(coefficient.number), coefficient.powers), unit)
    return intern(FUNCTIONS[name], (x,), None, x.shape)


class _Pair(Operation):
    """A smooth function of two arguments."""

    elementwise = True
    rule = "chain rule ⊙"

    def __init__(
        self, name: str, python: str, slopes: tuple[Callable[[Node, Node, Node], Node], ...]
    ) -> None:
        self.name, self.template, self.slopes = name, python, slopes

    def differential(self, node: Node, index: int, tangent: Node, /) -> Node:
        return hadamard(self.slopes[index](*node.args, node), tangent)

    def show(self, node, writer, /):
        return writer.function(writer.pick(self.name, rf"\operatorname{{{self.name}}}"), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return self.template.format(*arguments)


_POW = _Pair(
    "pow",
    "jnp.power({}, {})",
    (
        lambda x, y, _v: hadamard(y, general_power(x, _sum(y, -1))),
        lambda x, _y, v: hadamard(v, apply("log", x)),
    ),
)
_LOGADDEXP = _Pair(
    "logaddexp",
    "jnp.logaddexp({}, {})",
    (
        lambda x, y, _v: _sigmoid(add(x, scale(-1, y))),
        lambda x, y, _v: _sigmoid(add(y, scale(-1, x))),
    ),
)


def general_power(x: Node, y: Node) -> Node:
    """x to the power of a node; of a rational constant it is `power`."""
    value = constant_value(y)
    if value is not None and value.constant is not None and not value.decimal:
        return power(x, value.constant)
    return intern(_POW, (x, y), None, x.shape)


def logaddexp(x: Node, y: Node) -> Node:
    """log(eˣ + eʸ)."""
    return apply("softplus", x) if is_zero(y) else intern(_LOGADDEXP, (x, y), None, x.shape)
