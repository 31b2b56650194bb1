"""Layers, `(init, fwd, bwd)`: a rule plus its parameters; and the combinators that give back a Layer."""

from ._attention import multi_head_attention as multi_head_attention
from ._chain import chain as chain
from ._convolution import conv as conv
from ._convolution import conv_transpose as conv_transpose
from ._experts import mixture_of_experts as mixture_of_experts
from ._gated import gated_mlp as gated_mlp
from ._in_place import InPlace as InPlace
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
from ._normalization import batch_norm as batch_norm
from ._normalization import group_norm as group_norm
from ._normalization import instance_norm as instance_norm
from ._normalization import layer_norm as layer_norm
from ._normalization import rms_norm as rms_norm
from ._parallel import parallel as parallel
from ._pooling import avg_pool as avg_pool
from ._pooling import global_avg_pool as global_avg_pool
from ._pooling import max_pool as max_pool
from ._recompute import recompute as recompute
from ._recurrent import elman as elman
from ._recurrent import gru as gru
from ._recurrent import lstm as lstm
from ._repeat import repeat as repeat
from ._residual import residual as residual
from ._reversible import reversible as reversible
from ._sum import add as add
from ._tied import tied as tied
from ._transformer import positional_embedding as positional_embedding
from ._transformer import transformer_block as transformer_block

__all__ = [
    "Backward",
    "Context",
    "Delta",
    "Forward",
    "InPlace",
    "Layer",
    "activation",
    "add",
    "avg_pool",
    "batch_norm",
    "chain",
    "conv",
    "conv_transpose",
    "dense",
    "dropout",
    "elman",
    "embedding",
    "gated_mlp",
    "global_avg_pool",
    "group_norm",
    "gru",
    "initializer",
    "instance_norm",
    "layer_norm",
    "leaf",
    "lstm",
    "max_pool",
    "mixture_of_experts",
    "multi_head_attention",
    "parallel",
    "positional_embedding",
    "recompute",
    "repeat",
    "residual",
    "reversible",
    "rms_norm",
    "tied",
    "transformer_block",
]
