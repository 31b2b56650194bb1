"""ε: the library's numbers, a closed form, published values; and errors."""

import math
import sys

import pytest
from scipy.stats import norm

from funcbp import training


def closed_form(epsilon, mu):
    """δ of a Gaussian mechanism with sensitivity / deviation = μ (Balle & Wang 2018, theorem 8)."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


def moments(steps, rate, sigma, delta):
    """ε by the moments accountant of Abadi et al. 2016, with the closed sum for integer orders."""

    def divergence(order):
        terms = (
            math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * math.exp(k * (k - 1) / (2 * sigma**2))
            for k in range(order + 1)
        )
        return math.log(sum(terms)) / (order - 1)

    return min(steps * divergence(order) + math.log(1 / delta) / (order - 1) for order in range(2, 65))


def test_equals_the_library():
    accounting = pytest.importorskip("dp_accounting")
    event = accounting.SelfComposedDpEvent(
        accounting.PoissonSampledDpEvent(0.02, accounting.GaussianDpEvent(1.1)), 300
    )
    for name, accountant in (("pld", accounting.pld.PLDAccountant), ("rdp", accounting.rdp.RdpAccountant)):
        expected = accountant().compose(event).get_epsilon(1e-5)
        assert training.epsilon(300, 0.02, 1.1, 1e-5, accountant=name) == expected


def test_closed_form_without_sampling():
    """T Gaussian mechanisms on all the data are one with μ = √T / z."""
    for steps, z in ((1, 1.0), (16, 5.0)):
        found = training.epsilon(steps, 1.0, z, 1e-5)
        assert math.isclose(closed_form(found, math.sqrt(steps) / z), 1e-5, rel_tol=5e-3)


def test_published_value():
    """Abadi et al. 2016, section 3.2: q = 0.01, σ = 4, δ = 1e-5, 10,000 steps are (1.26, 1e-5)."""
    published = 1.26
    assert round(moments(10_000, 0.01, 4.0, 1e-5), 2) == published
    rdp = training.epsilon(10_000, 0.01, 4.0, 1e-5, accountant="rdp")
    pld = training.epsilon(10_000, 0.01, 4.0, 1e-5)
    # Their accountant's bound, a better conversion from the same moments, and the tight composition.
    assert 0.7 * published < pld < rdp < published


def test_multiplier_is_the_least_that_suffices():
    z = training.noise_multiplier_for(2.0, 1e-5, 200, 0.05, accountant="rdp")
    assert training.epsilon(200, 0.05, z, 1e-5, accountant="rdp") <= 2.0
    assert training.epsilon(200, 0.05, z - 5e-3, 1e-5, accountant="rdp") > 2.0


def test_ends():
    assert training.epsilon(10, 0.1, 0.0, 1e-5) == math.inf
    assert training.epsilon(0, 0.1, 1.0, 1e-5) == 0
    assert training.noise_multiplier_for(1.0, 1e-5, 0, 0.1) == 0


def test_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r"pip install 'funcbp\[privacy\]'"):
        training.epsilon(10, 0.1, 1.0, 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "`steps` must be a whole number"),
        ({"rate": 1.5}, "`rate` is a probability"),
        ({"delta": 0.0}, r"`delta` must be in \(0, 1\)"),
        ({"noise_multiplier": -1.0}, "`noise_multiplier` must be finite"),
        ({"accountant": "zcdp"}, "must be 'pld' or 'rdp', got 'zcdp'"),
    ],
)
def test_refusals(options, message):
    arguments = {"steps": 10, "rate": 0.1, "noise_multiplier": 1.0, "delta": 1e-5}
    with pytest.raises(ValueError, match=message):
        training.epsilon(**arguments | options)


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="`epsilon` must be positive"):
        training.noise_multiplier_for(0.0, 1e-5, 10, 0.1)
