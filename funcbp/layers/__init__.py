"""Layers, `(init, fwd, bwd)`: a rule plus its parameters; and the combinators that give back a Layer."""

from ._chain import chain as chain
from ._initializers import initializer as initializer
from ._layer import Backward as Backward
from ._layer import Context as Context
from ._layer import Delta as Delta
from ._layer import Forward as Forward
from ._layer import Layer as Layer
from ._layer import leaf as leaf
from ._leaves import activation as activation
from ._leaves import dense as dense
from ._leaves import dropout as dropout
from ._leaves import embedding as embedding
from ._leaves import layer_norm as layer_norm
from ._parallel import parallel as parallel
from ._repeat import repeat as repeat
from ._residual import residual as residual
from ._tied import tied as tied

__all__ = [
    "Backward",
    "Context",
    "Delta",
    "Forward",
    "Layer",
    "activation",
    "chain",
    "dense",
    "dropout",
    "embedding",
    "initializer",
    "layer_norm",
    "leaf",
    "parallel",
    "repeat",
    "residual",
    "tied",
]
