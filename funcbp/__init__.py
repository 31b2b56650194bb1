"""Hand-derived backward passes for JAX: a gradient you can see."""

from . import adapters as adapters
from . import curvature as curvature
from . import domains as domains
from . import factors as factors
from . import jacobians as jacobians
from . import layers as layers
from . import rules as rules
from . import training as training
from . import verify as verify
from ._backprop import Sweep as Sweep
from ._backprop import backprop as backprop
from ._backprop import predict as predict
from ._backprop import value_and_grad as value_and_grad
from ._clipping import Clipped as Clipped
from ._clipping import automatic_clipping as automatic_clipping
from ._clipping import clipped_grad as clipped_grad
from ._derive import Derivation as Derivation
from ._derive import derive as derive
from ._precision import Precision as Precision
from ._rule import Rule as Rule
from ._rule import catalogue as catalogue
from .jacobians import jacobian as jacobian
from .verify import assert_chain as assert_chain
from .verify import assert_gradient as assert_gradient
from .verify import assert_jacobian as assert_jacobian
from .verify import assert_vjp as assert_vjp
from .verify import check_chain as check_chain
from .verify import check_gradient as check_gradient
from .verify import check_jacobian as check_jacobian
from .verify import check_vjp as check_vjp
from .verify import sensitivity as sensitivity

__all__ = [
    "Clipped",
    "Derivation",
    "Precision",
    "Rule",
    "Sweep",
    "adapters",
    "assert_chain",
    "assert_gradient",
    "assert_jacobian",
    "assert_vjp",
    "automatic_clipping",
    "backprop",
    "catalogue",
    "check_chain",
    "check_gradient",
    "check_jacobian",
    "check_vjp",
    "clipped_grad",
    "curvature",
    "derive",
    "domains",
    "factors",
    "jacobian",
    "jacobians",
    "layers",
    "predict",
    "rules",
    "sensitivity",
    "training",
    "value_and_grad",
    "verify",
]
