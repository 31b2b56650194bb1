"""From a sweep to an optimizer's step."""

from ._accounting import epsilon as epsilon
from ._accounting import noise_multiplier_for as noise_multiplier_for
from ._add_noise import AdaptiveClipping as AdaptiveClipping
from ._add_noise import AddNoiseState as AddNoiseState
from ._add_noise import add_noise as add_noise
from ._checkpoint import checkpoint_metadata as checkpoint_metadata
from ._checkpoint import load_checkpoint as load_checkpoint
from ._checkpoint import save_checkpoint as save_checkpoint
from ._in_sweep import make_in_sweep_step as make_in_sweep_step
from ._kfac import KFAC as KFAC
from ._kfac import KFACState as KFACState
from ._kfac import make_kfac_step as make_kfac_step
from ._kfac import scale_by_kfac as scale_by_kfac
from ._noise_scale import GradientNoise as GradientNoise
from ._noise_scale import NoiseScaleState as NoiseScaleState
from ._noise_scale import gradient_noise as gradient_noise
from ._noise_scale import update_noise_scale as update_noise_scale
from ._norm_tracking import NormTracker as NormTracker
from ._norm_tracking import largest_norms as largest_norms
from ._norm_tracking import norm_tracker as norm_tracker
from ._norm_tracking import track_norms as track_norms
from ._private import PrivateState as PrivateState
from ._private import PrivateStep as PrivateStep
from ._private import make_private_step as make_private_step
from ._sampling import PoissonBatch as PoissonBatch
from ._sampling import poisson_batch as poisson_batch
from ._sampling import poisson_batches as poisson_batches
from ._sampling import poisson_capacity as poisson_capacity
from ._step import Step as Step
from ._step import make_step as make_step
from ._step import value_function as value_function

__all__ = [
    "KFAC",
    "AdaptiveClipping",
    "AddNoiseState",
    "GradientNoise",
    "KFACState",
    "NoiseScaleState",
    "NormTracker",
    "PoissonBatch",
    "PrivateState",
    "PrivateStep",
    "Step",
    "add_noise",
    "checkpoint_metadata",
    "epsilon",
    "gradient_noise",
    "largest_norms",
    "load_checkpoint",
    "make_in_sweep_step",
    "make_kfac_step",
    "make_private_step",
    "make_step",
    "noise_multiplier_for",
    "norm_tracker",
    "poisson_batch",
    "poisson_batches",
    "poisson_capacity",
    "save_checkpoint",
    "scale_by_kfac",
    "track_norms",
    "update_noise_scale",
    "value_function",
]
