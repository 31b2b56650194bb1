"""From a sweep to an optimizer's step."""

from ._step import Step as Step
from ._step import make_step as make_step
from ._step import value_function as value_function

__all__ = ["Step", "make_step", "value_function"]
