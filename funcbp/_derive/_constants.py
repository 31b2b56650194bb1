"""Numbers as a book writes them: 10⁻⁵, 2/√π."""

import math
from fractions import Fraction

__all__ = ["written_number"]

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_CONSTANTS = (
    (1 / math.sqrt(math.pi), "1/√π", r"\frac{1}{\sqrt{\pi}}"),
    (2 / math.sqrt(math.pi), "2/√π", r"\frac{2}{\sqrt{\pi}}"),
    (math.sqrt(2 / math.pi), "√(2/π)", r"\sqrt{\frac{2}{\pi}}"),
    (1 / math.sqrt(2 * math.pi), "1/√(2π)", r"\frac{1}{\sqrt{2 \pi}}"),
    (math.log(2 * math.pi), "log(2π)", r"\log(2 \pi)"),
    (math.log(2 * math.pi) / 2, "½ log(2π)", r"\frac{1}{2} \log(2 \pi)"),
    (math.log(math.pi), "log π", r"\log \pi"),
    (math.log(2), "log 2", r"\log 2"),
    (2 * math.pi, "2π", r"2 \pi"),
    (math.pi, "π", r"\pi"),
    (math.e, "e", "e"),
)


def written_number(number: Fraction, mode: str) -> str:
    """A positive number that is no simple fraction, in six digits if it has no name.

    >>> written_number(Fraction(1, 100_000), "text"), written_number(Fraction(1, 400_000), "latex")
    ('10⁻⁵', '2.5 \\\\cdot 10^{-6}')
    """
    value = float(number)
    for constant, text, latex in _CONSTANTS:
        if abs(value - constant) <= 4e-16 * constant:
            return latex if mode == "latex" else f"({text})" if "/√" in text or " " in text else text
    shown = f"{value:.6g}"
    mantissa, _, exponent = shown.partition("e")
    if not exponent:
        return shown
    power = str(int(exponent))
    power = f"10^{{{power}}}" if mode == "latex" else f"10{power.translate(_SUPERSCRIPTS)}"
    times = r" \cdot " if mode == "latex" else "·"
    return power if mantissa == "1" else f"{mantissa}{times}{power}"
