"""Curvature and kernels from one forward pass: square roots of the loss's Hessian are sent back as δ's are.

With z the outputs, J_n = ∂z_n/∂θ and H_n = ∂²ℓ_n/∂z_n² = S_n S_nᵀ, the generalized Gauss-Newton matrix is Σ_n
J_nᵀ H_n J_n = Σ_n (J_nᵀ S_n)(J_nᵀ S_n)ᵀ. A column of S_n goes through a network's `bwd` as ∂ℓ_n/∂z_n does,
and where it meets a parameter there is a factor to be contracted. Rows of the identity in place of S_n give
the neural tangent kernel, J_n J_mᵀ.
"""

from ._ggn import ggn_diagonal as ggn_diagonal
from ._ggn import ggn_trace as ggn_trace
from ._ggn import hessian_diagonal_source as hessian_diagonal_source
from ._kronecker import Basis as Basis
from ._kronecker import Curvature as Curvature
from ._kronecker import WithCurvature as WithCurvature
from ._kronecker import kronecker_curvature as kronecker_curvature
from ._loss import hessian_root as hessian_root
from ._loss import hessian_sample as hessian_sample
from ._ntk import ntk as ntk
from ._products import ggn_vector_product as ggn_vector_product
from ._products import hessian_vector_product as hessian_vector_product

__all__ = [
    "Basis",
    "Curvature",
    "WithCurvature",
    "ggn_diagonal",
    "ggn_trace",
    "ggn_vector_product",
    "hessian_diagonal_source",
    "hessian_root",
    "hessian_sample",
    "hessian_vector_product",
    "kronecker_curvature",
    "ntk",
]
