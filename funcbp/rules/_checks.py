"""What backward functions check of a cotangent: a wrong one is an error, not a silent broadcast or cast."""

from typing import Any

from jax import numpy as jnp
from jax.typing import DTypeLike

from .._signature import describe

__all__ = ["check_cotangent"]


def check_cotangent(
    rule: str,
    out_ct: Any,
    shape: tuple[int, ...] | None = None,
    dtype: DTypeLike | None = None,
    output: str = "",
) -> None:
    """Raise unless the cotangent is a floating array, with the output's shape and dtype where given.

    Args:
        rule: whose backward function it was given to.
        out_ct: the cotangent.
        shape: of the output.
        dtype: of the output.
        output: the name of the output, for a rule that has several.
    """
    what = f"{rule}: the cotangent of `{output}`" if output else f"{rule}: the cotangent"
    if not hasattr(out_ct, "shape") or not hasattr(out_ct, "dtype"):
        raise TypeError(
            f"{what} must be an array, got {type(out_ct).__name__}; convert it: "
            "jnp.asarray(cotangent, output.dtype)."
        )
    if not jnp.issubdtype(out_ct.dtype, jnp.floating):
        raise TypeError(
            f"{what} must be floating, got {describe(out_ct)}; convert it: cotangent.astype(output.dtype)."
        )
    if shape is not None and out_ct.shape != shape:
        raise ValueError(f"{what} is {describe(out_ct)}, the output has shape {shape}; they must be equal.")
    # A float64 of NumPy is a float32 to JAX unless 64-bit types are on.
    if dtype is not None and jnp.result_type(out_ct) != jnp.result_type(dtype):
        raise TypeError(
            f"{what} is {describe(out_ct)}, the output {jnp.dtype(dtype).name}; they share "
            "one dtype: cotangent.astype(output.dtype)."
        )
