"""Hand-derived backward passes for JAX: a gradient you can see."""

from . import domains as domains
from . import factors as factors
from . import rules as rules
from ._rule import Rule as Rule
from ._rule import catalogue as catalogue

__all__ = ["Rule", "catalogue", "domains", "factors", "rules"]
