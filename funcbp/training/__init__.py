"""From a sweep to an optimizer's step."""

from ._checkpoint import checkpoint_metadata as checkpoint_metadata
from ._checkpoint import load_checkpoint as load_checkpoint
from ._checkpoint import save_checkpoint as save_checkpoint
from ._step import Step as Step
from ._step import make_step as make_step
from ._step import value_function as value_function

__all__ = ["Step", "checkpoint_metadata", "load_checkpoint", "make_step", "save_checkpoint", "value_function"]
