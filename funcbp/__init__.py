"""Hand-derived backward passes for JAX: a gradient you can see."""

from . import domains as domains
from . import factors as factors
from . import layers as layers
from . import rules as rules
from . import training as training
from ._backprop import Sweep as Sweep
from ._backprop import backprop as backprop
from ._backprop import predict as predict
from ._backprop import value_and_grad as value_and_grad
from ._precision import Precision as Precision
from ._rule import Rule as Rule
from ._rule import catalogue as catalogue

__all__ = [
    "Precision",
    "Rule",
    "Sweep",
    "backprop",
    "catalogue",
    "domains",
    "factors",
    "layers",
    "predict",
    "rules",
    "training",
    "value_and_grad",
]
