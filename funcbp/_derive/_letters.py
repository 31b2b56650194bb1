"""Names of variables in the letters of a book."""

__all__ = ["DIFFERENTIAL", "name_of"]

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_STEPS = dict(zip("0123456789+-aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
_GREEK = dict(
    zip(
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "eta",
            "theta",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "rho",
            "sigma",
            "tau",
            "phi",
            "chi",
            "psi",
            "omega",
        ],
        "αβγδεηθκλμνξρστφχψω",
        strict=True,
    )
)
DIFFERENTIAL = "d:"
"""What the name of a differential begins with."""


def name_of(name: str, mode: str) -> str:
    """A variable's name in the letters of a book: W12 with a subscript, gamma as γ, delta_1 as δ₁."""
    if name.startswith(DIFFERENTIAL):
        mark = "d" if mode == "text" else r"\mathrm{d}"
        return mark + name_of(name[len(DIFFERENTIAL) :], mode)
    if "@" in name:
        return _in_a_step(*name.split("@"), mode)
    if name.startswith("delta_") and len(name) > 6:
        inner = name[6:].rstrip("_")
        if mode == "latex":
            return rf"\delta_{{{inner if inner.isdigit() else name_of(inner, mode)}}}"
        return "δ" + inner.translate(_SUBSCRIPTS) if inner.isdigit() else f"δ_{name_of(inner, mode)}"
    base = name.rstrip("0123456789")
    number = name[len(base) :]
    base = base.rstrip("_")
    base, _, rest = base.partition("_") if base else (name, "", "")
    if mode == "latex":
        base = "\\" + base if base in _GREEK else base if len(base) == 1 else rf"\mathit{{{base}}}"
        index = ",".join(x for x in (rf"\text{{{rest}}}".replace("_", r"\_") if rest else "", number) if x)
        return f"{base}_{{{index}}}" if index else base
    base = _GREEK.get(base, base)
    return base + (f"_{rest}" if rest else "") + number.translate(_SUBSCRIPTS)


def _in_a_step(base: str, when: str, mode: str) -> str:
    """A name with the step as an index: hₜ₋₁, δ_h,t."""
    shown = name_of(base, mode)
    if mode == "latex":
        index = when.replace("*", r" \, ")
        return f"{shown[:-1]},{index}}}" if shown.endswith("}") and "_" in shown else f"{shown}_{{{index}}}"
    comma = "," if "_" in shown or shown[-1] in "₀₁₂₃₄₅₆₇₈₉" else ""
    if all(c in _STEPS for c in when) and "_" not in shown:
        return shown + comma + "".join(_STEPS[c] for c in when)
    return f"{shown}{comma or '_'}{when.replace('-', '−')}"
