"""The privacy of DP-SGD, by Google's dp-accounting."""

import math
from types import ModuleType
from typing import Any, Literal

__all__ = ["epsilon", "noise_multiplier_for"]

Accountant = Literal["pld", "rdp"]


def epsilon(
    steps: int, rate: float, noise_multiplier: float, delta: float, *, accountant: Accountant = "pld"
) -> float:
    """ε of so many steps of DP-SGD at δ: Gaussian noise on Poisson samples, composed.

    Two data sets are neighbors if one has one example more (add or remove one), the adjacency of which
    `make_private_step` states the sensitivity. That every example is drawn independently (`poisson_batch`) is
    taken for granted; choices made by looking at the data, such as of learning rates, are not counted.

    Args:
        steps: T.
        rate: q, the probability with which a step draws an example.
        noise_multiplier: z, as `make_private_step` takes it; for `AdaptiveClipping` too, whose split leaves
            gradient and count together with z.
        delta: δ, well below 1 over the number of examples.
        accountant: "pld" composes the distributions of the privacy loss numerically (tight), "rdp" Rényi
            divergences (faster, a few percent to a few tens above).

    Returns:
        ε; infinite without noise, 0 without steps.

    Raises:
        ImportError: without the extra `privacy`.
        ValueError: for numbers out of their ranges.

    >>> round(epsilon(steps=1000, rate=0.01, noise_multiplier=1.0, delta=1e-5), 2)
    1.83
    """
    _check(steps, rate, delta, accountant)
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(
            f"epsilon: `noise_multiplier` must be finite and not negative, got {noise_multiplier}."
        )
    library = _library()
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    spent = _new_accountant(library, accountant).compose(_event(library, steps, rate, noise_multiplier))
    return float(spent.get_epsilon(delta))


def noise_multiplier_for(
    epsilon: float, delta: float, steps: int, rate: float, *, accountant: Accountant = "pld"
) -> float:
    """The least noise multiplier, to about 1e-3, for which `epsilon` says no more than this.

    Args:
        epsilon: ε that may be spent.
        delta: δ.
        steps: T.
        rate: q.
        accountant: as for `epsilon`.

    Raises:
        ImportError: without the extra `privacy`.
        ValueError: for numbers out of their ranges.

    >>> round(noise_multiplier_for(2.0, 1e-5, steps=1000, rate=0.01, accountant="rdp"), 2)
    1.02
    """
    _check(steps, rate, delta, accountant)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"noise_multiplier_for: `epsilon` must be positive and finite, got {epsilon}.")
    library = _library()
    if steps == 0:
        return 0.0
    return float(
        library.calibrate_dp_mechanism(
            lambda: _new_accountant(library, accountant),
            lambda multiplier: _event(library, steps, rate, multiplier),
            epsilon,
            delta,
            tol=1e-3,
        )
    )


def _event(library: ModuleType, steps: int, rate: float, noise_multiplier: float) -> Any:
    noise = library.GaussianDpEvent(noise_multiplier)
    return library.SelfComposedDpEvent(library.PoissonSampledDpEvent(rate, noise), steps)


def _new_accountant(library: ModuleType, accountant: Accountant) -> Any:
    one = library.NeighboringRelation.ADD_OR_REMOVE_ONE
    if accountant == "pld":
        return library.pld.PLDAccountant(neighboring_relation=one)
    return library.rdp.RdpAccountant(neighboring_relation=one)


def _library() -> ModuleType:
    try:
        import dp_accounting
    except ImportError as error:
        raise ImportError(
            "the privacy of a run is computed by dp-accounting: pip install 'funcbp[privacy]'."
        ) from error
    return dp_accounting


def _check(steps: int, rate: float, delta: float, accountant: str) -> None:
    if not (isinstance(steps, int) and steps >= 0):
        raise ValueError(f"epsilon: `steps` must be a whole number, not negative, got {steps!r}.")
    if not 0 < rate <= 1:
        raise ValueError(f"epsilon: `rate` is a probability above 0, got {rate}.")
    if not 0 < delta < 1:
        raise ValueError(f"epsilon: `delta` must be in (0, 1), got {delta}.")
    if accountant not in ("pld", "rdp"):
        raise ValueError(f"epsilon: `accountant` must be 'pld' or 'rdp', got {accountant!r}.")
