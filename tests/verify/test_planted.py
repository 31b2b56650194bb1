"""The checker on derivatives as people write them, right and wrong: a few by default, all with `--long`."""

import pytest

import funcbp
from tests.planted import CASES, Case

_EVERY = 61  # a prime: several families come up, bugs and right ones


def _parameters() -> list:
    return [
        pytest.param(case, id=case.name, marks=() if i % _EVERY == 0 else pytest.mark.long)
        for i, case in enumerate(CASES)
    ]


@pytest.mark.parametrize("case", _parameters())
def test_verdict(case: Case) -> None:
    check = getattr(funcbp, f"check_{case.kind}")
    report = check(case.mine, of=case.of, args=case.args(), **case.options)
    if not case.is_bug:
        assert report.ok, report
    else:
        assert report.verdict == "wrong", report
