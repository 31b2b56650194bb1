"""Losses: one value per example (or per element, where optax has it so); never reduced.

`make_fenchel_young_loss` makes more of them, of a maximum and where it is taken.
"""

from .binary import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from .binary import sigmoid_focal_loss as sigmoid_focal_loss
from .contrastive import ntxent as ntxent
from .contrastive import triplet_margin_loss as triplet_margin_loss
from .cosine import cosine_distance as cosine_distance
from .cosine import cosine_similarity as cosine_similarity
from .cross_entropy import poly_loss_cross_entropy as poly_loss_cross_entropy
from .cross_entropy import safe_softmax_cross_entropy as safe_softmax_cross_entropy
from .cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from .ctc import ctc_loss as ctc_loss
from .ctc import ctc_loss_with_forward_probs as ctc_loss_with_forward_probs
from .divergences import generalized_kl_divergence as generalized_kl_divergence
from .divergences import kl_divergence as kl_divergence
from .divergences import kl_divergence_with_log_targets as kl_divergence_with_log_targets
from .elementwise import absolute_error as absolute_error
from .elementwise import hinge_loss as hinge_loss
from .elementwise import huber_loss as huber_loss
from .elementwise import l2_loss as l2_loss
from .elementwise import log_cosh as log_cosh
from .elementwise import perceptron_loss as perceptron_loss
from .elementwise import quantile_loss as quantile_loss
from .elementwise import squared_error as squared_error
from .fenchel_young import make_fenchel_young_loss as make_fenchel_young_loss
from .fenchel_young import softmax_fenchel_young_loss as softmax_fenchel_young_loss
from .fenchel_young import sparsemax_fenchel_young_loss as sparsemax_fenchel_young_loss
from .integer_labels import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from .linear_cross_entropy import linear_softmax_cross_entropy as linear_softmax_cross_entropy
from .multiclass import multiclass_hinge_loss as multiclass_hinge_loss
from .multiclass import multiclass_perceptron_loss as multiclass_perceptron_loss
from .multiclass import multiclass_sparsemax_loss as multiclass_sparsemax_loss
from .multiclass import sparsemax_loss as sparsemax_loss
from .ranking import ranking_softmax_loss as ranking_softmax_loss
from .ranking import smooth_labels as smooth_labels
from .segmentation import binary_dice_loss as binary_dice_loss
from .segmentation import dice_loss as dice_loss
from .segmentation import multiclass_generalized_dice_loss as multiclass_generalized_dice_loss

__all__ = [
    "absolute_error",
    "binary_dice_loss",
    "cosine_distance",
    "cosine_similarity",
    "ctc_loss",
    "ctc_loss_with_forward_probs",
    "dice_loss",
    "generalized_kl_divergence",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "linear_softmax_cross_entropy",
    "log_cosh",
    "multiclass_generalized_dice_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "ntxent",
    "perceptron_loss",
    "poly_loss_cross_entropy",
    "quantile_loss",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_fenchel_young_loss",
    "sparsemax_fenchel_young_loss",
    "sparsemax_loss",
    "squared_error",
    "triplet_margin_loss",
]
