"""Elementwise functions, and activations of several entries or arrays."""

from .elementary import absolute as absolute
from .elementary import arccos as arccos
from .elementary import arccosh as arccosh
from .elementary import arcsin as arcsin
from .elementary import arcsinh as arcsinh
from .elementary import arctan as arctan
from .elementary import arctanh as arctanh
from .elementary import cbrt as cbrt
from .elementary import cos as cos
from .elementary import cosh as cosh
from .elementary import erf as erf
from .elementary import erfc as erfc
from .elementary import exp as exp
from .elementary import expm1 as expm1
from .elementary import log as log
from .elementary import log1mexp as log1mexp
from .elementary import log1p as log1p
from .elementary import logit as logit
from .elementary import power as power
from .elementary import reciprocal as reciprocal
from .elementary import rsqrt as rsqrt
from .elementary import sin as sin
from .elementary import sinh as sinh
from .elementary import sqrt as sqrt
from .elementary import square as square
from .elementary import tan as tan
from .elementwise import celu as celu
from .elementwise import elu as elu
from .elementwise import gelu as gelu
from .elementwise import hard_sigmoid as hard_sigmoid
from .elementwise import hard_silu as hard_silu
from .elementwise import hard_tanh as hard_tanh
from .elementwise import identity as identity
from .elementwise import leaky_relu as leaky_relu
from .elementwise import log_sigmoid as log_sigmoid
from .elementwise import mish as mish
from .elementwise import relu as relu
from .elementwise import relu6 as relu6
from .elementwise import selu as selu
from .elementwise import sigmoid as sigmoid
from .elementwise import silu as silu
from .elementwise import soft_sign as soft_sign
from .elementwise import softplus as softplus
from .elementwise import sparse_plus as sparse_plus
from .elementwise import sparse_sigmoid as sparse_sigmoid
from .elementwise import squareplus as squareplus
from .elementwise import tanh as tanh
from .gated import geglu as geglu
from .gated import glu as glu
from .gated import reglu as reglu
from .gated import swiglu as swiglu
from .several import logaddexp as logaddexp
from .several import maxout as maxout
from .several import prelu as prelu
from .softmax import log_softmax as log_softmax
from .softmax import logmeanexp as logmeanexp
from .softmax import logsumexp as logsumexp
from .softmax import softmax as softmax
from .softmax import softmax_entropy as softmax_entropy
from .sparse import sparsemax as sparsemax

__all__ = [
    "absolute",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "cbrt",
    "celu",
    "cos",
    "cosh",
    "elu",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "geglu",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "log",
    "log1mexp",
    "log1p",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logit",
    "logmeanexp",
    "logsumexp",
    "maxout",
    "mish",
    "power",
    "prelu",
    "reciprocal",
    "reglu",
    "relu",
    "relu6",
    "rsqrt",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "sinh",
    "soft_sign",
    "softmax",
    "softmax_entropy",
    "softplus",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "sqrt",
    "square",
    "squareplus",
    "swiglu",
    "tan",
    "tanh",
]
