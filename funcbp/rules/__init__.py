"""The catalogue: derivation, forward, backward, reference, domain and named points of a rule in one place.

Every family re-exports its rules; here they are all together.
"""

from . import (
    activations,
    affine,
    attention,
    convolution,
    indexing,
    losses,
    matrix,
    normalization,
    probability,
    recurrent,
)
from .activations import *  # noqa: F403
from .affine import *  # noqa: F403
from .attention import *  # noqa: F403
from .convolution import *  # noqa: F403
from .indexing import *  # noqa: F403
from .losses import *  # noqa: F403
from .matrix import *  # noqa: F403
from .normalization import *  # noqa: F403
from .probability import *  # noqa: F403
from .recurrent import *  # noqa: F403

__all__: list[str] = []
__all__ += activations.__all__
__all__ += affine.__all__
__all__ += attention.__all__
__all__ += convolution.__all__
__all__ += indexing.__all__
__all__ += losses.__all__
__all__ += matrix.__all__
__all__ += normalization.__all__
__all__ += probability.__all__
__all__ += recurrent.__all__
