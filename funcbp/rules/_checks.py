"""What backward functions check of a cotangent: a wrong shape is an error, not a silent broadcast."""

import jax

from .._signature import describe

__all__ = ["check_cotangent"]


def check_cotangent(rule: str, out_ct: jax.Array, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless the cotangent has the output's shape."""
    if out_ct.shape != shape:
        raise ValueError(
            f"{rule}: the cotangent is {describe(out_ct)}, the output has shape {shape}; they must be equal."
        )
