"""Exact scalars: a rational number times powers of dimensions, such as 1/(2n) or √2/√d."""

import ast
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

__all__ = ["ONE", "ZERO", "Dimension", "Scalar", "collected", "scalar_of_dimension", "scalar_of_float"]

Dimension = int | str
"""A number, or a polynomial in named sizes as JAX writes it: `n`, `2*n`, `d + n`."""

_ROOT_LIMIT = 10**6  # radicands above this are floats that someone computed, not √2
_READABLE = 10**4  # denominators a person writes


@dataclass(frozen=True)
class Scalar:
    """number · Π baseᵉ, where a base is the name of a dimension, a polynomial, or an integer under a root."""

    number: Fraction = Fraction(1)
    powers: tuple[tuple[str | int, Fraction], ...] = ()

    def __mul__(self, other: "Scalar") -> "Scalar":
        powers = dict(self.powers)
        for base, exponent in other.powers:
            powers[base] = powers.get(base, Fraction(0)) + exponent
        return _normal(self.number * other.number, powers)

    def __neg__(self) -> "Scalar":
        return Scalar(-self.number, self.powers)

    def __truediv__(self, other: "Scalar") -> "Scalar":
        return self * other.power(Fraction(-1))

    def power(self, exponent: Fraction) -> "Scalar":
        """This scalar to a rational power; exact where it is rational or a square root, else to 53 bits."""
        powers = {base: e * exponent for base, e in self.powers}
        if exponent.denominator == 1:
            return _normal(self.number**exponent.numerator, powers)
        if self.number <= 0:
            raise ValueError(f"{self.number} to the power {exponent} is not real")
        if exponent.denominator == 2:
            number = self.number**exponent.numerator
            radicand = number.numerator * number.denominator
            if radicand <= _ROOT_LIMIT:
                powers[radicand] = powers.get(radicand, Fraction(0)) + Fraction(1, 2)
                return _normal(Fraction(1, number.denominator), powers)
        return _normal(Fraction(float(self.number) ** float(exponent)), powers)

    def plus(self, other: "Scalar") -> "Scalar":
        """The sum; of unlike terms it is a polynomial in the dimensions."""
        if self.powers == other.powers or not other.number:
            return Scalar(self.number + other.number, self.powers) if other.number else self
        if not self.number:
            return other
        if any(e.denominator != 1 or e < 0 for _, e in self.powers + other.powers):
            raise ValueError("a sum of roots or fractions of dimensions")
        sign = "-" if other.number < 0 else "+"
        base = f"{self.spelled()} {sign} {Scalar(abs(other.number), other.powers).spelled()}"
        return Scalar(Fraction(1), ((base, Fraction(1)),))

    @property
    def magnitude(self) -> "Scalar":
        """The scalar without its sign."""
        return Scalar(abs(self.number), self.powers)

    @property
    def sign(self) -> "Scalar":
        """1 or -1."""
        return Scalar(Fraction(-1 if self.number < 0 else 1))

    def spelled(self) -> str:
        """As an expression of Python in the names of the dimensions."""
        above, below = self.sides(lambda number: str(number) if number.denominator == 1 else _decimal(number))
        top = " * ".join(above) or "1"
        sign = "-" if self.number < 0 else ""
        if not below:
            return sign + top
        bottom = " * ".join(below)
        return f"{sign}{top} / ({bottom})" if len(below) > 1 else f"{sign}{top} / {bottom}"

    def sides(self, decimal, power=None) -> tuple[list[str], list[str]]:
        """What stands above and below the fraction bar, without the sign."""
        number = abs(self.number)
        above: list[str] = []
        below: list[str] = []
        if self.decimal:
            above.append(decimal(number))
        else:
            above += [str(number.numerator)] if number.numerator != 1 else []
            below += [str(number.denominator)] if number.denominator != 1 else []
        for base, exponent in self.powers:
            (above if exponent > 0 else below).append((power or _python_power)(base, abs(exponent)))
        return above, below

    @property
    def decimal(self) -> bool:
        """Whether a person would write its number with a decimal point."""
        return self.number.denominator > _READABLE or abs(self.number.numerator) > 10**9

    def value(self, sizes: dict[str, int]) -> float:
        """The number it is for these sizes."""
        out = float(self.number)
        for base, exponent in self.powers:
            size = base if isinstance(base, int) else eval(base.replace("^", "**"), {}, dict(sizes))
            out *= float(size) ** float(exponent)
        return out

    @property
    def constant(self) -> Fraction | None:
        """The number, if no dimension is in it."""
        return None if self.powers else self.number


ONE = Scalar()
ZERO = Scalar(Fraction(0))


def _decimal(number: Fraction) -> str:
    return repr(float(number))


def _python_power(base: str | int, exponent: Fraction) -> str:
    text = str(base).replace("^", "**")
    text = f"({text})" if " " in text else text
    if exponent == 1:
        return text
    return f"{text}**{float(exponent)}" if exponent.denominator != 1 else f"{text}**{exponent}"


def _normal(number: Fraction, powers: dict[str | int, Fraction]) -> Scalar:
    if not number:
        return ZERO
    radicand = 1
    rest: dict[str | int, Fraction] = {}
    for base, exponent in powers.items():
        if isinstance(base, int):
            whole = math.floor(exponent)
            number *= Fraction(base) ** whole
            radicand *= base if exponent != whole else 1
        elif exponent:
            rest[base] = exponent
    if radicand > 1:
        outside, inside = _extract_square(radicand)
        number *= outside
        if inside > 1:
            rest[inside] = Fraction(1, 2)
    return Scalar(number, tuple(sorted(rest.items(), key=lambda item: str(item[0]))))


def _extract_square(radicand: int) -> tuple[int, int]:
    outside, divisor = 1, 2
    while divisor * divisor <= radicand:
        while radicand % (divisor * divisor) == 0:
            radicand //= divisor * divisor
            outside *= divisor
        divisor += 1
    return outside, radicand


def scalar_of_float(value: float) -> Scalar:
    """The rational number that a person meant by this float, if the float is its nearest, else its own value.

    >>> scalar_of_float(0.1).number, scalar_of_float(1 / 3).number
    (Fraction(1, 10), Fraction(1, 3))
    """
    simple = Fraction(value).limit_denominator(_READABLE)
    return Scalar(simple if float(simple) == value else Fraction(value))


def scalar_of_dimension(dimension: Dimension) -> Scalar:
    """A dimension as a scalar; a sum is one base.

    >>> scalar_of_dimension("2*d*n^2").spelled()
    '2 * d * n**2'
    """
    if isinstance(dimension, int):
        return Scalar(Fraction(dimension))
    if not re.fullmatch(r"[\w*^]+", dimension):
        return Scalar(Fraction(1), ((dimension.replace("*", " * "), Fraction(1)),))
    factors = []
    for factor in dimension.split("*"):
        base, _, exponent = factor.partition("^")
        if base.isdigit():
            factors.append(Scalar(Fraction(base) ** int(exponent or 1)))
        else:
            factors.append(Scalar(Fraction(1), ((base, Fraction(int(exponent or 1))),)))
    return reduce(Scalar.__mul__, factors, ONE)


def collected(text: str) -> str:
    """A polynomial with like terms collected, names before numbers; anything else as it is.

    >>> collected("1 + (m - 1)"), collected("2 * n - (n - 3)"), collected("m / 2")
    ('m', 'n + 3', 'm / 2')
    """
    try:
        terms = _terms(ast.parse(text.replace("^", "**"), mode="eval").body)
    except (SyntaxError, TypeError):
        return text
    shown = ""
    for factors, number in sorted(terms.items(), key=lambda item: (-len(item[0]), item[0])):
        if number:
            body = "*".join([str(abs(number))] * (abs(number) != 1 or not factors) + list(factors))
            sign = ("-" if number < 0 else "") if not shown else " - " if number < 0 else " + "
            shown += sign + body
    return shown or "0"


def _terms(tree: ast.AST) -> dict[tuple[str, ...], int]:
    """The coefficients of products of names.

    Raises:
        TypeError: for what is no polynomial with whole coefficients.
    """
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return {(): tree.value}
    if isinstance(tree, ast.Name):
        return {(tree.id,): 1}
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return {k: -v for k, v in _terms(tree.operand).items()}
    if not isinstance(tree, ast.BinOp) or not isinstance(tree.op, ast.Add | ast.Sub | ast.Mult):
        raise TypeError(ast.dump(tree))
    left, right = _terms(tree.left), _terms(tree.right)
    out: dict[tuple[str, ...], int] = {}
    if isinstance(tree.op, ast.Mult):
        pairs = [(tuple(sorted(a + b)), x * y) for a, x in left.items() for b, y in right.items()]
    else:
        sign = -1 if isinstance(tree.op, ast.Sub) else 1
        pairs = [*left.items(), *((k, sign * v) for k, v in right.items())]
    for factors, number in pairs:
        out[factors] = out.get(factors, 0) + number
    return out
