"""Which rule of the catalogue has which Jacobian, by which argument.

A rule that is not in the table is applied by forward mode and by its backward pass, and nothing is claimed.
"""

from .._rule import Rule
from .._signature import is_variadic
from . import _images as images
from . import _structures as made
from ._attention import attention
from ._calls import Call
from ._operator import Operator
from .matrix_free import MatrixFree

__all__ = ["has_structure", "of_rule"]


def of_rule(call: Call) -> Operator:
    """The Jacobian of a rule by one of its arguments."""
    if not hasattr(call.out, "shape"):
        raise TypeError(
            f"jacobian: {call.rule.name} returns several arrays; differentiate a function that picks one, "
            f"such as lambda *args: rules.{call.rule.name}(*args)[0]."
        )
    builder = _builder(call.rule, call.argument)
    structured = builder(call) if builder else None
    if structured is not None:
        return structured
    name = f"∂{call.rule.name}/∂{call.names[call.position]}"
    return MatrixFree(call.args, call.maps, call.x.shape, call.out.shape, name)


def has_structure(rule: Rule, argument: str) -> bool:
    """Whether the table knows the structure of a rule by the argument of that name."""
    return _builder(rule, argument) is not None


def _builder(rule: Rule, argument: str) -> made.Builder | None:
    if (rule.name, argument) in _TABLE:
        return _TABLE[rule.name, argument]
    if rule.name in _ELEMENTWISE:
        return made.elementwise
    axes = next(a.axes for a in rule.signature.arguments if a.name == argument)
    # Parameters that all examples share have other axes, if perhaps of the same lengths.
    examples = bool(axes) and (axes[0] == "batch" or is_variadic(axes[0]))
    return made.reduction if rule.name in _ROWS and examples else None


_ELEMENTWISE_NAMES = """
    identity relu relu6 leaky_relu elu celu selu sigmoid log_sigmoid hard_sigmoid sparse_sigmoid tanh
    hard_tanh soft_sign softplus squareplus sparse_plus silu hard_silu mish gelu exp expm1 log log1p
    log1mexp logit sqrt rsqrt cbrt reciprocal square power absolute sin cos tan arcsin arccos arctan sinh
    cosh arcsinh arccosh arctanh erf erfc swiglu geglu reglu logaddexp where masked_fill dropout clip
    stop_gradient reverse_gradient straight_through_round straight_through_sign straight_through_clip
    straight_through_step sigmoid_binary_cross_entropy sigmoid_focal_loss squared_error l2_loss
    absolute_error quantile_loss huber_loss log_cosh hinge_loss normal_logpdf laplace_logpdf cauchy_logpdf
    logistic_logpdf student_t_logpdf gamma_logpdf beta_logpdf normal_sample bernoulli_logpmf
    poisson_logpmf hadamard sparsemax_loss smooth_labels perceptron_loss
"""
# One number for every example.
_ROWS_NAMES = """
    logsumexp logmeanexp softmax_entropy maxout sum mean prod max min var std softmax_cross_entropy
    safe_softmax_cross_entropy softmax_cross_entropy_with_integer_labels cosine_similarity cosine_distance
    kl_divergence multiclass_hinge_loss multiclass_perceptron_loss
    softmax_fenchel_young_loss det logdet_positive_definite logdet_gram linear_form bilinear_product
    quadratic_form gram_form gram_product_form trace trace_product trace_sandwich trace_quadratic
    trace_inverse inverse_form vector_norm frobenius_norm nuclear_norm operator_norm least_squares_cost
    categorical_entropy dirichlet_logpdf quantile triplet_margin_loss ntxent poly_loss_cross_entropy
    ctc_loss kl_divergence_with_log_targets generalized_kl_divergence sparsemax_fenchel_young_loss
    linear_softmax_cross_entropy multiclass_sparsemax_loss ranking_softmax_loss dice_loss binary_dice_loss
    multiclass_generalized_dice_loss det_quadratic logdet_low_rank_update linear_network_cost nested_form
    twice_nested_form trace_quadratic_inverse affine_quadratic_form affine_bilinear_form sandwich_form
    weighted_residual trace_bilinear_quadratic trace_repeated trace_sandwich_gram squared_affine_residual
    low_rank_residual trace_power power_form trace_product_power hmm_log_likelihood crf_log_partition
    crf_log_likelihood diagonal_normal_logpdf kl_diagonal_normal kl_standard_normal categorical_logpmf
    multivariate_normal_cholesky_logpdf multivariate_normal_logpdf
    gaussian_mixture_logpdf
"""
_ELEMENTWISE, _ROWS = frozenset(_ELEMENTWISE_NAMES.split()), frozenset(_ROWS_NAMES.split())
_TABLE: dict[tuple[str, str], made.Builder] = {
    ("dense", "x"): made.by_input("w"),
    ("dense", "w"): made.by_weight,
    ("dense", "b"): made.bias,
    ("matmul", "a"): made.matmul,
    ("matmul", "b"): made.matmul,
    ("low_rank_adapter", "w"): made.by_weight,
    ("conv_general", "x"): images.linear("Conv", "w"),
    ("conv_general", "w"): images.by_kernel,
    ("conv_transpose", "x"): images.linear("ConvTranspose", "w"),
    ("conv_transpose", "w"): images.by_kernel,
    ("avg_pool", "x"): images.averaged,
    ("adaptive_avg_pool", "x"): images.averaged,
    ("global_avg_pool", "x"): images.global_average,
    ("max_pool", "x"): images.selected,
    ("adaptive_max_pool", "x"): images.selected,
    ("global_max_pool", "x"): images.selected,
    ("group_norm", "x"): images.grouped_norm,
    ("instance_norm", "x"): images.grouped_norm,
    ("embedding", "table"): images.rows_looked_up,
    ("rotary_embedding", "x"): images.linear("Rot"),
    ("dot_product_attention", "query"): attention,
    ("dot_product_attention", "key"): attention,
    ("dot_product_attention", "value"): attention,
    ("sandwich", "a"): made.sandwich,
    ("sandwich", "x"): made.sandwich,
    ("sandwich", "b"): made.sandwich,
    ("inv", "x"): made.inverse,
    ("gram", "x"): made.gram,
    ("outer_product", "x"): made.outer_product,
    ("outer_product", "y"): made.outer_product,
    ("diagonal_product", "x"): made.scaled_rows,
    ("matrix_transpose", "x"): made.transposition,
    ("softmax", "p"): made.softmax,
    ("log_softmax", "p"): made.log_softmax,
    ("layer_norm", "x"): made.layer_norm,
    ("rms_norm", "x"): made.rms_norm,
    ("l2_normalize", "x"): made.l2_normalize,
    ("layer_norm", "gain"): made.gain,
    ("rms_norm", "gain"): made.gain,
    ("batch_norm_inference", "gain"): made.gain,
    ("group_norm", "gain"): made.gain,
    ("instance_norm", "gain"): made.gain,
    ("prelu", "slope"): made.gain,
    ("prelu", "p"): made.elementwise,
    ("batch_norm_inference", "x"): made.elementwise,
    ("batch_norm_inference", "mean"): made.gain,
    ("batch_norm_inference", "variance"): made.gain,
    ("weight_norm", "gain"): made.gain,
    ("elman_cell", "b"): made.gain,
    ("scatter_add", "x"): made.elementwise,
    ("dynamic_update_slice_in_dim", "x"): made.elementwise,
    ("bilinear", "b"): made.bias,
    ("conv_general", "b"): made.bias,
    ("conv_transpose", "b"): made.bias,
    ("layer_norm", "bias"): made.bias,
    ("batch_norm_inference", "bias"): made.bias,
    ("group_norm", "bias"): made.bias,
    ("instance_norm", "bias"): made.bias,
    **{
        (name, argument): made.moved
        for name, argument in (
            ("flip", "x"),
            ("roll", "x"),
            ("take", "x"),
            ("take_along_axis", "x"),
            ("dynamic_slice_in_dim", "x"),
            ("vectorize", "x"),
            ("commutation", "v"),
            ("diagonal_part", "x"),
            ("diagonal_matrix", "d"),
            ("tril", "x"),
            ("triu", "x"),
            ("symmetric_from_triangle", "v"),
            ("toeplitz_matrix", "t"),
        )
    },
}
