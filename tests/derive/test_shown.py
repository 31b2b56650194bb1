"""The derivations that the README shows are right, and hold for all sizes."""

import pytest

from scripts.derivations import NESTED, READ_ALOUD, Shown
from scripts.make_docs import Config, generated


@pytest.mark.parametrize("shown", [NESTED, *READ_ALOUD], ids=lambda shown: shown.function.__name__)
def test_what_is_shown_is_right(shown: Shown) -> None:
    d = shown.derivation()
    assert d.general
    report = d.check(samples=1)
    assert report.ok, str(report)


def test_a_page_gets_the_derivations() -> None:
    markers = "\n".join(
        f"<!-- {n}:{end} -->" for n in ("derivation", "derivations") for end in ("begin", "end")
    )
    page = generated(f"before\n{markers}\nafter", Config())
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert page.count("```text\nGiven ") == 4
    assert "∂C/∂W = (1/n) Xᵀ R = (1/n) Xᵀ (X W − Y)" in page
    assert "`jnp.sum((X @ W - Y) ** 2) / (2 * X.shape[0])`" in page
    assert generated(page, Config()) == page
