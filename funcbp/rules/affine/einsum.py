"""Products of two arrays along named axes."""

import re

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import contracted, upcast
from ..._rule import Rule
from ...domains import Normal
from .._checks import check_cotangent

X = Float[Array, "*left"]
Y = Float[Array, "*right"]
Z = Float[Array, "*out"]

_SUBSCRIPTS = re.compile(r"([A-Za-z]*),([A-Za-z]*)->([A-Za-z]*)")


def einsum_fwd(x: X, y: Y, *, subscripts: str = "ij,jk->ik") -> tuple[Z, tuple[X, Y]]:
    r"""Product of two arrays, summed over all indices that are not in the output.

    Forward, with index sets I, J, K:    z_K = Σ_{(I ∪ J) \ K} x_I y_J
    Backward:                            x̄_I = Σ_{(J ∪ K) \ I} z̄_K y_J      ȳ_J = Σ_{(I ∪ K) \ J} z̄_K x_I

    Derivation. dz_K = Σ dx_I y_J + Σ x_I dy_J, and z̄_K : dz_K sums over all indices at once: what is not in I
    is summed for x̄. So the three einsums are one, with the roles exchanged. An index of x that is in neither
    y nor z is summed alone; x̄ does not depend on it and is repeated along it.

    Saves x and y. Products accumulate in float32 at least and are rounded once.

    Args:
        x: the first array.
        y: the second.
        subscripts: `"ij,jk->ik"`: one letter an axis, the output named, no letter twice in one array (take
            the diagonal first), no ellipsis.

    Raises:
        ValueError: for subscripts that are not so, or do not fit the shapes.
    """
    left, right, out = _indices(subscripts, x.shape, y.shape)
    return _product(left, right, out, x, y).astype(x.dtype), (x, y)


def einsum_bwd(residuals: tuple[X, Y], z_ct: Z, *, subscripts: str = "ij,jk->ik") -> tuple[X, Y]:
    """x̄_I = Σ z̄_K y_J, ȳ_J = Σ z̄_K x_I."""
    x, y = residuals
    left, right, out = _indices(subscripts, x.shape, y.shape)
    sizes = dict(zip(left + right, x.shape + y.shape, strict=True))
    check_cotangent("einsum", z_ct, tuple(sizes[i] for i in out), x.dtype)
    x_ct, y_ct = (_product(out, right, left, z_ct, y), _product(out, left, right, z_ct, x))
    return jnp.broadcast_to(x_ct, x.shape).astype(x.dtype), jnp.broadcast_to(y_ct, y.shape).astype(y.dtype)


def _product(left: str, right: str, out: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The einsum; an index of `out` that neither array has gets the length 1."""
    a, kept_a = _without(a, left, right + out)
    b, kept_b = _without(b, right, left + out)
    found = "".join(i for i in out if i in left + right)
    product = contracted(f"{kept_a},{kept_b}->{found}", a, b)
    return jnp.expand_dims(product, [n for n, i in enumerate(out) if i not in found])


def _without(a: jax.Array, indices: str, wanted: str) -> tuple[jax.Array, str]:
    """Summed over the indices that no one else has."""
    alone = tuple(n for n, i in enumerate(indices) if i not in wanted)
    if not alone:
        return a, indices
    return jnp.sum(upcast(a), alone), "".join(i for i in indices if i in wanted)


def _indices(subscripts: str, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[str, str, str]:
    match = _SUBSCRIPTS.fullmatch(subscripts.replace(" ", ""))
    if match is None:
        raise ValueError(
            f"einsum: `subscripts` must be like 'ij,jk->ik', two arrays and the output, got {subscripts!r}."
        )
    own, other, out = match.groups()
    sizes: dict[str, int] = {}
    for name, indices, shape in (("x", own, left), ("y", other, right)):
        if len(indices) != len(shape):
            raise ValueError(f"einsum: `{name}` has shape {shape}, but `subscripts` name it {indices!r}.")
        for index, size in zip(indices, shape, strict=True):
            if sizes.setdefault(index, size) != size:
                raise ValueError(
                    f"einsum: {index!r} in {subscripts!r} has length {sizes[index]} in `x` and {size} in `y`."
                )
    for indices in (own, other, out):
        if len(set(indices)) != len(indices):
            raise ValueError(
                f"einsum: {indices!r} in {subscripts!r} has an index twice; take the diagonal first."
            )
    if unknown := set(out) - sizes.keys():
        raise ValueError(f"einsum: the output of {subscripts!r} has {min(unknown)!r}, which no array has.")
    return own, other, out


einsum = Rule(
    einsum_fwd,
    einsum_bwd,
    reference=lambda x, y, subscripts="ij,jk->ik": jnp.einsum(subscripts, x, y),
    domain={"x": Normal(), "y": Normal()},
    settings=tuple(
        {"subscripts": subscripts}
        for subscripts in ("ij,jk->ki", "ij,ji->ij", "ij,ji->", "ij,jk->jki", "ij,jk->k", "ij,kl->jl")
    ),
    sizes=({"left": (2, 3), "right": (3, 2)},),
    formula="z_K = Σ x_I y_J; x̄_I = Σ z̄_K y_J, ȳ_J = Σ z̄_K x_I",
    saves="x, y",
)
