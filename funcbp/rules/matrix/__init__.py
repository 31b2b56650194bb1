"""Matrix functions: an executable Matrix Cookbook, from the boxed identities to factorizations and norms."""

from .determinants import det as det
from .determinants import det_quadratic as det_quadratic
from .determinants import logdet_gram as logdet_gram
from .determinants import logdet_low_rank_update as logdet_low_rank_update
from .determinants import logdet_positive_definite as logdet_positive_definite
from .determinants import slogdet as slogdet
from .eigen import eigh as eigh
from .eigen import eigvalsh as eigvalsh
from .factorizations import cholesky as cholesky
from .factorizations import lstsq as lstsq
from .factorizations import lu as lu
from .factorizations import pinv as pinv
from .factorizations import qr as qr
from .forms import bilinear_product as bilinear_product
from .forms import gram_form as gram_form
from .forms import gram_product_form as gram_product_form
from .forms import least_squares_cost as least_squares_cost
from .forms import linear_form as linear_form
from .forms import linear_network_cost as linear_network_cost
from .forms import nested_form as nested_form
from .forms import quadratic_form as quadratic_form
from .forms import twice_nested_form as twice_nested_form
from .generalized_eigen import eigh_generalized as eigh_generalized
from .generalized_eigen import eigvalsh_generalized as eigvalsh_generalized
from .inverses import cayley as cayley
from .inverses import cho_solve as cho_solve
from .inverses import inv as inv
from .inverses import inverse_form as inverse_form
from .inverses import lyapunov as lyapunov
from .inverses import solve as solve
from .inverses import solve_triangular as solve_triangular
from .inverses import sylvester as sylvester
from .inverses import trace_inverse as trace_inverse
from .inverses import trace_quadratic_inverse as trace_quadratic_inverse
from .norms import frobenius_norm as frobenius_norm
from .norms import vector_norm as vector_norm
from .powers import expm as expm
from .powers import matrix_power as matrix_power
from .products import affine_bilinear_form as affine_bilinear_form
from .products import affine_quadratic_form as affine_quadratic_form
from .products import diagonal_product as diagonal_product
from .products import gram as gram
from .products import hadamard as hadamard
from .products import khatri_rao as khatri_rao
from .products import kronecker as kronecker
from .products import kronecker_vector_product as kronecker_vector_product
from .products import outer_product as outer_product
from .products import sandwich as sandwich
from .products import sandwich_form as sandwich_form
from .products import squared_distances as squared_distances
from .products import weighted_residual as weighted_residual
from .singular import nuclear_norm as nuclear_norm
from .singular import operator_norm as operator_norm
from .singular import polar_factor as polar_factor
from .singular import singular_values as singular_values
from .singular import svd as svd
from .singular import truncated_svd as truncated_svd
from .structures import commutation as commutation
from .structures import diagonal_matrix as diagonal_matrix
from .structures import diagonal_part as diagonal_part
from .structures import matrix_transpose as matrix_transpose
from .structures import symmetric_from_triangle as symmetric_from_triangle
from .structures import symmetric_part as symmetric_part
from .structures import toeplitz_matrix as toeplitz_matrix
from .structures import tril as tril
from .structures import triu as triu
from .structures import vectorize as vectorize
from .symmetric_functions import expm_symmetric as expm_symmetric
from .symmetric_functions import inverse_sqrtm_positive_definite as inverse_sqrtm_positive_definite
from .symmetric_functions import logm_positive_definite as logm_positive_definite
from .symmetric_functions import power_positive_definite as power_positive_definite
from .symmetric_functions import sqrtm_positive_definite as sqrtm_positive_definite
from .traces import low_rank_residual as low_rank_residual
from .traces import power_form as power_form
from .traces import squared_affine_residual as squared_affine_residual
from .traces import trace as trace
from .traces import trace_bilinear_quadratic as trace_bilinear_quadratic
from .traces import trace_power as trace_power
from .traces import trace_product as trace_product
from .traces import trace_product_power as trace_product_power
from .traces import trace_quadratic as trace_quadratic
from .traces import trace_repeated as trace_repeated
from .traces import trace_sandwich as trace_sandwich
from .traces import trace_sandwich_gram as trace_sandwich_gram

__all__ = [
    "affine_bilinear_form",
    "affine_quadratic_form",
    "bilinear_product",
    "cayley",
    "cho_solve",
    "cholesky",
    "commutation",
    "det",
    "det_quadratic",
    "diagonal_matrix",
    "diagonal_part",
    "diagonal_product",
    "eigh",
    "eigh_generalized",
    "eigvalsh",
    "eigvalsh_generalized",
    "expm",
    "expm_symmetric",
    "frobenius_norm",
    "gram",
    "gram_form",
    "gram_product_form",
    "hadamard",
    "inv",
    "inverse_form",
    "inverse_sqrtm_positive_definite",
    "khatri_rao",
    "kronecker",
    "kronecker_vector_product",
    "least_squares_cost",
    "linear_form",
    "linear_network_cost",
    "logdet_gram",
    "logdet_low_rank_update",
    "logdet_positive_definite",
    "logm_positive_definite",
    "low_rank_residual",
    "lstsq",
    "lu",
    "lyapunov",
    "matrix_power",
    "matrix_transpose",
    "nested_form",
    "nuclear_norm",
    "operator_norm",
    "outer_product",
    "pinv",
    "polar_factor",
    "power_form",
    "power_positive_definite",
    "qr",
    "quadratic_form",
    "sandwich",
    "sandwich_form",
    "singular_values",
    "slogdet",
    "solve",
    "solve_triangular",
    "sqrtm_positive_definite",
    "squared_affine_residual",
    "squared_distances",
    "svd",
    "sylvester",
    "symmetric_from_triangle",
    "symmetric_part",
    "toeplitz_matrix",
    "trace",
    "trace_bilinear_quadratic",
    "trace_inverse",
    "trace_power",
    "trace_product",
    "trace_product_power",
    "trace_quadratic",
    "trace_quadratic_inverse",
    "trace_repeated",
    "trace_sandwich",
    "trace_sandwich_gram",
    "tril",
    "triu",
    "truncated_svd",
    "twice_nested_form",
    "vector_norm",
    "vectorize",
    "weighted_residual",
]
