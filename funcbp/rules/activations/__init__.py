"""Elementwise functions, and activations of several entries or arrays."""

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
from .functions import absolute as absolute
from .functions import arccos as arccos
from .functions import arccosh as arccosh
from .functions import arcsin as arcsin
from .functions import arcsinh as arcsinh
from .functions import arctan as arctan
from .functions import arctanh as arctanh
from .functions import cbrt as cbrt
from .functions import cos as cos
from .functions import cosh as cosh
from .functions import erf as erf
from .functions import erfc as erfc
from .functions import exp as exp
from .functions import expm1 as expm1
from .functions import log as log
from .functions import log1mexp as log1mexp
from .functions import log1p as log1p
from .functions import logit as logit
from .functions import power as power
from .functions import reciprocal as reciprocal
from .functions import rsqrt as rsqrt
from .functions import sin as sin
from .functions import sinh as sinh
from .functions import sqrt as sqrt
from .functions import square as square
from .functions import tan as tan
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
