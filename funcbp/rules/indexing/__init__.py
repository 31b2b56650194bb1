"""Picking, placing, adding up, ordering and masking elements."""

from .cumulative import cumlogsumexp as cumlogsumexp
from .cumulative import cummax as cummax
from .cumulative import cummin as cummin
from .cumulative import cumprod as cumprod
from .cumulative import cumsum as cumsum
from .gathers import embedding as embedding
from .gathers import scatter_add as scatter_add
from .gathers import take as take
from .gathers import take_along_axis as take_along_axis
from .masks import clip as clip
from .masks import dropout as dropout
from .masks import masked_fill as masked_fill
from .masks import where as where
from .moves import concatenate as concatenate
from .moves import dynamic_slice_in_dim as dynamic_slice_in_dim
from .moves import dynamic_update_slice_in_dim as dynamic_update_slice_in_dim
from .moves import flip as flip
from .moves import pad as pad
from .moves import roll as roll
from .moves import split as split
from .order import quantile as quantile
from .order import sort as sort
from .order import top_k_values as top_k_values
from .reductions import max as max
from .reductions import mean as mean
from .reductions import min as min
from .reductions import prod as prod
from .reductions import sum as sum
from .segments import segment_max as segment_max
from .segments import segment_mean as segment_mean
from .segments import segment_softmax as segment_softmax
from .segments import segment_sum as segment_sum
from .surrogates import reverse_gradient as reverse_gradient
from .surrogates import stop_gradient as stop_gradient
from .surrogates import straight_through_clip as straight_through_clip
from .surrogates import straight_through_round as straight_through_round
from .surrogates import straight_through_sign as straight_through_sign
from .surrogates import straight_through_step as straight_through_step

__all__ = [
    "clip",
    "concatenate",
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "dropout",
    "dynamic_slice_in_dim",
    "dynamic_update_slice_in_dim",
    "embedding",
    "flip",
    "masked_fill",
    "max",
    "mean",
    "min",
    "pad",
    "prod",
    "quantile",
    "reverse_gradient",
    "roll",
    "scatter_add",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sort",
    "split",
    "stop_gradient",
    "straight_through_clip",
    "straight_through_round",
    "straight_through_sign",
    "straight_through_step",
    "sum",
    "take",
    "take_along_axis",
    "top_k_values",
    "where",
]
