"""A parameter's gradient, kept as what met there: an activation and a δ. Contract it to whatever is wanted.

One file a structure; each is a registered dataclass (a pytree whose sizes are static) with its contractions
as methods.
"""

from ._base import Factor as Factor
from ._base import Kronecker as Kronecker
from ._base import contract as contract
from .elementwise import Elementwise as Elementwise
from .outer import Outer as Outer
from .patches import Patches as Patches
from .rows import Rows as Rows
from .stacked import Stacked as Stacked
from .sum import Sum as Sum
from .total import Total as Total
from .transposed import Transposed as Transposed

__all__ = [
    "Elementwise",
    "Factor",
    "Kronecker",
    "Outer",
    "Patches",
    "Rows",
    "Stacked",
    "Sum",
    "Total",
    "Transposed",
    "contract",
]
