"""A third way to a gradient, beside differentials and indices: guess it by shape and degree.

The gradient of a polynomial in matrices is a sum of monomials of which much is known beforehand: its shape is
that of the variable, its degree in the variable is one less than that of the function, and in everything else
the same. Such monomials can be listed: every letter has a leg for each of its dimensions, the gradient has
two that stay free, and a monomial is a way to join legs of equal dimension in pairs. Most of the list is
eliminated by special cases; the constants, which no shape and no degree can tell, are fitted to one numeric
gradient. If two monomials are the same at the data, the fit is not unique, and that has to be said.
"""

import functools
import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp

SIZES = {"l": 2, "m": 3, "n": 4}
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Monomial:
    """A product of letters, joined by equal indices of `einsum`, and with a δ for every free leg.

    Attributes:
        letters: the factors, each as often as its degree says.
        dimensions: of every letter, and of the result under "".
        einsum: the indices of the factors, of the δ's, and of the result.
    """

    letters: tuple[str, ...]
    dimensions: Mapping[str, str]
    einsum: str

    def at(self, values: Arrays) -> np.ndarray:
        sizes = {d: n for x in values for d, n in zip(self.dimensions[x], values[x].shape, strict=True)}
        deltas = (np.eye(sizes[d]) for d in self.dimensions[""])
        return np.einsum(self.einsum, *(values[x] for x in self.letters), *deltas)


def pairings(legs: Sequence[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    """All ways to join legs in pairs."""
    if not legs:
        yield ()
        return
    first, *rest = legs
    for partner in rest:
        others = [leg for leg in rest if leg != partner]
        yield from (((first, partner), *more) for more in pairings(others))


def candidates(letters: Mapping[str, str], degrees: Mapping[str, int], free: str) -> list[Monomial]:
    """All monomials of these degrees, with dimensions `free`; those that differ in order only are one."""
    chosen = tuple(letter for letter, degree in degrees.items() for _ in range(degree))
    spelled = [*(letters[letter] for letter in chosen), *free]
    dimensions = "".join(spelled)
    by_dimension = [[k for k, d in enumerate(dimensions) if d == each] for each in sorted(set(dimensions))]
    outer = string.ascii_uppercase[: len(free)]
    found: dict[object, Monomial] = {}
    for joined in itertools.product(*(list(pairings(legs)) for legs in by_dimension)):
        pairs = zip(itertools.chain(*joined), string.ascii_lowercase, strict=False)
        index = iter([name for _, name in sorted((leg, name) for pair, name in pairs for leg in pair)])
        terms = ["".join(next(index) for _ in each) for each in spelled]
        terms[len(chosen) :] = [inner + end for inner, end in zip(terms[len(chosen) :], outer, strict=True)]
        monomial = Monomial(chosen, {**letters, "": free}, f"{','.join(terms)}->{outer}")
        found.setdefault(_value(monomial, letters), monomial)
    return list(found.values())


def _value(monomial: Monomial, letters: Mapping[str, str]) -> object:
    """Equal for monomials that differ in the order of their letters only: the value at integers."""
    rng = np.random.default_rng(7)
    values = {x: rng.integers(-9, 10, [SIZES[d] for d in dims]) for x, dims in letters.items()}
    return tuple(monomial.at(values).ravel().tolist())


def fit(guesses: Sequence[Monomial], values: Arrays, gradient: np.ndarray) -> list[Fraction] | None:
    """The constants of the monomials, small fractions; None if they are not unique at these values."""
    columns = np.stack([guess.at(values).ravel() for guess in guesses], axis=1)
    if np.linalg.matrix_rank(columns) < len(guesses):
        return None
    found, *_ = np.linalg.lstsq(columns, np.ravel(gradient))
    np.testing.assert_allclose(columns @ found, np.ravel(gradient), rtol=1e-9, atol=1e-9)
    return [Fraction(c).limit_denominator(12) for c in found]


def drawn(letters: Mapping[str, str], sizes: Mapping[str, int] = SIZES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    return {x: rng.normal(size=[sizes[d] for d in dims]) for x, dims in letters.items()}


def derived(function, values: Arrays, wrt: str) -> tuple[str, np.ndarray]:
    """The gradient as `derive` has it: its formula, and its value."""
    d = funcbp.derive(function, *values.values(), names=list(values), wrt=wrt)
    return d.gradients[wrt].expanded, np.asarray(d.plain(*values.values())[1][wrt])


def linear(A, x, y):
    return y @ A @ x


def quadratic(A, x):
    return 0.5 * x @ A.T @ A @ x


def sandwich(A, B, x):
    return 0.5 * x @ B.T @ A.T @ A @ B @ x


LINEAR = {"A": "mn", "x": "n", "y": "m"}
QUADRATIC = {"A": "mn", "x": "n"}
SANDWICH = {"A": "lm", "B": "mn", "x": "n"}


def test_linear_there_is_one_guess_and_its_constant_is_one(x64) -> None:
    """yᵀAx: of degree 0 in A, 1 in x and y, with the shape of A there is yxᵀ only. Shapes leave c yxᵀ."""
    guesses = candidates(LINEAR, {"x": 1, "y": 1}, "mn")
    values = drawn(LINEAR)
    formula, gradient = derived(linear, values, "A")
    assert len(guesses) == 1
    assert fit(guesses, values, gradient) == [1]
    assert fit(guesses, values, 3 * gradient) == [3]
    assert formula == "y xᵀ"


def test_a_square_matrix_has_one_more(x64) -> None:
    """If A is square, xyᵀ fits as well; a fit at numbers says 0, and at x = y it cannot tell."""
    letters = {"A": "nn", "x": "n", "y": "n"}
    guesses = candidates(letters, {"x": 1, "y": 1}, "nn")
    values = drawn(letters)
    assert len(guesses) == 3  # yxᵀ, xyᵀ, and (xᵀy) I
    _, gradient = derived(linear, values, "A")
    found = fit(guesses, values, gradient)
    assert found is not None
    assert sorted(found) == [0, 0, 1]
    np.testing.assert_allclose(
        guesses[found.index(Fraction(1))].at(values), np.outer(values["y"], values["x"])
    )
    assert fit(guesses, values | {"y": values["x"]}, gradient) is None


def test_quadratic_two_guesses(x64) -> None:
    """½xᵀAᵀAx: A(xᵀx) or A(xxᵀ). A(xxᵀ)(xxᵀ) has the shape and a degree in x of 4: it is not on the list."""
    guesses = candidates(QUADRATIC, {"A": 1, "x": 2}, "mn")
    values = drawn(QUADRATIC)
    A, x = values["A"], values["x"]
    formula, gradient = derived(quadratic, values, "A")
    found = fit(guesses, values, gradient)
    assert found is not None
    shown = {c: guess.at(values) for c, guess in zip(found, guesses, strict=True)}
    assert set(shown) == {0, 1}
    np.testing.assert_allclose(shown[Fraction(0)], A * (x @ x))
    np.testing.assert_allclose(shown[Fraction(1)], A @ np.outer(x, x))
    assert formula == "A x xᵀ"
    too_high = lambda A, x: A @ np.outer(x, x) @ np.outer(x, x)  # noqa: E731 (a formula, to be scaled)
    np.testing.assert_allclose(too_high(A, 3 * x), 3**4 * too_high(A, x))
    np.testing.assert_allclose(derived(quadratic, {"A": A, "x": 3 * x}, "A")[1], 3**2 * gradient)


def test_sandwich_four_guesses_and_what_a_special_case_can_say(x64) -> None:
    """½xᵀBᵀAᵀABx, by B: (AᵀA)Bxxᵀ, (AᵀA)Bxᵀx and, easily overlooked, both with tr(AᵀA)B for (AᵀA)B.

    AᵀA = I is ½xᵀBᵀBx, with the gradient Bxxᵀ: it excludes both with xᵀx, and cannot exclude the trace, for
    there AᵀA and tr(AᵀA) are constants. Numbers can.
    """
    guesses = candidates(SANDWICH, {"A": 2, "B": 1, "x": 2}, "mn")
    values = drawn(SANDWICH)
    A, B, x = values["A"], values["B"], values["x"]
    D, outer, inner = A.T @ A, np.outer(x, x), x @ x
    named = {
        "AᵀABxxᵀ": D @ B @ outer,
        "AᵀABxᵀx": D @ B * inner,
        "tr(AᵀA)Bxxᵀ": np.trace(D) * B @ outer,
        "tr(AᵀA)Bxᵀx": np.trace(D) * B * inner,
    }
    assert len(guesses) == len(named)
    by_name = {n: next(g for g in guesses if np.allclose(g.at(values), value)) for n, value in named.items()}
    orthogonal = {"A": np.eye(3), "B": B, "x": x}
    _, special = derived(sandwich, orthogonal, "B")
    left = [n for n, g in by_name.items() if parallel(g.at(orthogonal), special)]
    assert left == ["AᵀABxxᵀ", "tr(AᵀA)Bxxᵀ"]
    assert fit([by_name[n] for n in left], orthogonal, special) is None
    formula, gradient = derived(sandwich, values, "B")
    assert fit([by_name[n] for n in left], values, gradient) == [1, 0]
    assert fit(list(by_name.values()), values, gradient) == [1, 0, 0, 0]
    assert formula == "Aᵀ A B x xᵀ"


def parallel(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(np.stack([a.ravel(), b.ravel()]), tol=1e-9) == 1)


def test_numbers_of_size_one_tell_nothing(x64) -> None:
    """Where all sizes are 1, all guesses are the same number."""
    guesses = candidates(SANDWICH, {"A": 2, "B": 1, "x": 2}, "mn")
    ones = dict.fromkeys(SIZES, 1)
    values = drawn(SANDWICH, ones)
    gradient = values["A"].T @ values["A"] @ values["B"] * (values["x"] @ values["x"])
    assert fit(guesses, values, gradient) is None


def test_an_activation_is_guessed_by_what_it_may_become(x64) -> None:
    """yᵀσ(Ax): of what is linear in y and made of σ′ = σ′(Ax), x and y, the cases choose (y ⊙ σ′)xᵀ.

    σ = id, with yxᵀ, excludes what does not become that; σ = p², where the gradient is of degree 2 in x,
    excludes σ′ to any power but the first; a mean of σ′ passes both, and numbers exclude it.
    """
    guesses = {
        "y xᵀ": lambda y, s, x: np.outer(y, x),
        "σ′ xᵀ": lambda y, s, x: np.outer(s, x),
        "(y ⊙ σ′) xᵀ": lambda y, s, x: np.outer(y * s, x),
        "(y ⊙ σ′ ⊙ σ′) xᵀ": lambda y, s, x: np.outer(y * s * s, x),
        "⟨σ′⟩ y xᵀ": lambda y, s, x: s.mean() * np.outer(y, x),
        "(yᵀ σ′) 1 xᵀ": lambda y, s, x: (y @ s) * np.outer(np.ones_like(y), x),
    }
    values = drawn(LINEAR)
    A, x, y = values["A"], values["x"], values["y"]
    double = {n for n, g in guesses.items() if np.allclose(g(2 * y, A @ x, x), 2 * g(y, A @ x, x))}
    assert guesses.keys() - double == {"σ′ xᵀ"}
    identity = {n for n in double if np.allclose(guesses[n](y, np.ones(3), x), np.outer(y, x))}
    assert double - identity == {"(yᵀ σ′) 1 xᵀ"}
    at = lambda n, k: guesses[n](y, 2 * A @ (k * x), k * x)  # noqa: E731 (σ = p², x scaled by k)
    square = {n for n in identity if np.allclose(at(n, 3), 3**2 * at(n, 1))}
    assert square == {"(y ⊙ σ′) xᵀ", "⟨σ′⟩ y xᵀ"}
    formula, gradient = derived(lambda A, x, y: y @ jax.nn.sigmoid(A @ x), values, "A")
    q = 1 / (1 + np.exp(-A @ x))
    assert [n for n in square if np.allclose(guesses[n](y, q * (1 - q), x), gradient)] == ["(y ⊙ σ′) xᵀ"]
    assert formula == "(y ⊙ σ′(A x)) xᵀ"


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("", "", "y xᵀ"),
        ("L", "", "Lᵀ y xᵀ"),
        ("", "R", "y xᵀ Rᵀ"),
        ("LM", "", "Mᵀ Lᵀ y xᵀ"),
        ("", "RS", "y xᵀ Sᵀ Rᵀ"),
        ("LM", "RS", "Mᵀ Lᵀ y xᵀ Sᵀ Rᵀ"),
    ],
)
def test_the_imputed_rule_in_its_true_form(left: str, right: str, expected: str, x64) -> None:
    """To transpose every constant and tack it on the left is right for constants on the variable's left.

    Those on its right come back on the right. Without any the two rules are the same, so that yᵀAx does not
    tell them apart; with one, tacking it on the left gives another matrix, or none where sizes do not fit.
    """
    rng = np.random.default_rng(3)
    values = {name: rng.normal(size=(3, 3)) for name in f"{left}A{right}"}
    values |= {"x": rng.normal(size=3), "y": rng.normal(size=3)}

    def function(*arrays):
        *matrices, x, y = arrays
        return functools.reduce(jnp.matmul, matrices, y) @ x

    formula, gradient = derived(function, values, "A")
    assert formula == expected
    everything_left = np.outer(values["y"], values["x"])
    for name in left + right:
        everything_left = values[name].T @ everything_left
    assert np.allclose(everything_left, gradient) == (not right)
