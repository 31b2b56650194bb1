"""Log-densities and log-partition functions."""

from .chains import crf_log_likelihood as crf_log_likelihood
from .chains import crf_log_partition as crf_log_partition
from .chains import hmm_log_likelihood as hmm_log_likelihood
from .continuous import beta_logpdf as beta_logpdf
from .continuous import cauchy_logpdf as cauchy_logpdf
from .continuous import diagonal_normal_logpdf as diagonal_normal_logpdf
from .continuous import gamma_logpdf as gamma_logpdf
from .continuous import kl_diagonal_normal as kl_diagonal_normal
from .continuous import kl_standard_normal as kl_standard_normal
from .continuous import laplace_logpdf as laplace_logpdf
from .continuous import logistic_logpdf as logistic_logpdf
from .continuous import normal_logpdf as normal_logpdf
from .continuous import normal_sample as normal_sample
from .continuous import student_t_logpdf as student_t_logpdf
from .discrete import bernoulli_logpmf as bernoulli_logpmf
from .discrete import categorical_entropy as categorical_entropy
from .discrete import categorical_logpmf as categorical_logpmf
from .discrete import dirichlet_logpdf as dirichlet_logpdf
from .discrete import poisson_logpmf as poisson_logpmf
from .gaussian_process import gaussian_process_log_likelihood as gaussian_process_log_likelihood
from .multivariate import gaussian_mixture_logpdf as gaussian_mixture_logpdf
from .multivariate import multivariate_normal_cholesky_logpdf as multivariate_normal_cholesky_logpdf
from .multivariate import multivariate_normal_logpdf as multivariate_normal_logpdf

__all__ = [
    "bernoulli_logpmf",
    "beta_logpdf",
    "categorical_entropy",
    "categorical_logpmf",
    "cauchy_logpdf",
    "crf_log_likelihood",
    "crf_log_partition",
    "diagonal_normal_logpdf",
    "dirichlet_logpdf",
    "gamma_logpdf",
    "gaussian_mixture_logpdf",
    "gaussian_process_log_likelihood",
    "hmm_log_likelihood",
    "kl_diagonal_normal",
    "kl_standard_normal",
    "laplace_logpdf",
    "logistic_logpdf",
    "multivariate_normal_cholesky_logpdf",
    "multivariate_normal_logpdf",
    "normal_logpdf",
    "normal_sample",
    "poisson_logpmf",
    "student_t_logpdf",
]
