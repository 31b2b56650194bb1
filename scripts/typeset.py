"""Formulas as they stand in docstrings and tables, in Unicode, as LaTeX: `W̄ = Σ xᵀ δ` as
`\\bar{W} = \\sum x^{T} \\delta`.
"""

import re
import unicodedata

__all__ = ["UnknownSymbol", "latex"]

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾", "0123456789+-=()", strict=True)) | dict(
    zip("ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᵀᴴᴺᴷᴸᴹᴰ", "abcdefghijklmnoprstuvwxyzTHNKLMD", strict=True)
)
_SUPERSCRIPTS |= {"ᵝ": r"\beta ", "ᵞ": r"\gamma ", "ᵟ": r"\delta ", "ᶿ": r"\theta ", "ᐟ": "/", "⁄": "/"}
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()", strict=True)) | dict(
    zip("ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", "aehijklmnoprstuvx", strict=True)
)
_SUBSCRIPTS |= {"ᵦ": r"\beta ", "ᵧ": r"\gamma ", "ᵨ": r"\rho "}
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Φ": "Phi", "Ψ": "Psi",
    "Ω": "Omega", "ϕ": "phi", "ϵ": "epsilon",
}  # fmt: skip
_SYMBOLS = {symbol: rf"\{name} " for symbol, name in _GREEK.items()} | {
    "⊙": r"\odot ", "⊗": r"\otimes ", "⊕": r"\oplus ", "⊘": r"\oslash ", "∘": r"\circ ", "·": r"\cdot ",
    "×": r"\times ", "*": r"\ast ", "±": r"\pm ", "∓": r"\mp ", "÷": r"\div ",
    "∂": r"\partial ", "∇": r"\nabla ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∝": r"\propto ",
    "≪": r"\ll ", "≫": r"\gg ", "∼": r"\sim ", "~": r"\sim ", "≔": ":=", "−": "-", "–": "-",
    "∈": r"\in ", "∉": r"\notin ", "⊂": r"\subset ", "⊆": r"\subseteq ", "∪": r"\cup ", "∩": r"\cap ",
    "∅": r"\emptyset ", "∞": r"\infty ", "→": r"\to ",
    "←": r"\leftarrow ", "↦": r"\mapsto ", "⇒": r"\Rightarrow ",
    "∀": r"\forall ", "∃": r"\exists ", "¬": r"\neg ", "∧": r"\wedge ", "∨": r"\vee ",
    "★": r"\star ", "⋆": r"\star ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "‖": r"\Vert ", "|": r"\vert ", "∣": r"\vert ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "…": r"\dots ", "⋯": r"\cdots ", "′": "'", "ℓ": r"\ell ", "ℝ": r"\mathbb{R}", "ℒ": r"\mathcal{L}",
    "𝟏": r"\mathbf{1}", "𝟙": r"\mathbb{1}", "∊": r"\in ",
    "½": r"\tfrac{1}{2}", "⅓": r"\tfrac{1}{3}", "¼": r"\tfrac{1}{4}", "⅔": r"\tfrac{2}{3}",
    "¾": r"\tfrac{3}{4}", "⅙": r"\tfrac{1}{6}", "⅛": r"\tfrac{1}{8}",
    "\\": r"\setminus ", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "°": r"^\circ ",
}  # fmt: skip
_PLAIN = frozenset("0123456789+-=()[]<>/:;,.!?'\"@")
_ACCENTS = {
    "\u0304": "bar", "\u0302": "hat", "\u0303": "tilde", "\u0307": "dot", "\u0308": "ddot", "\u0305": "bar",
}  # fmt: skip
_OPERATORS = frozenset(
    (
        *("log", "exp", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "arcsinh", "erf", "erfc"),
        *("max", "min", "argmax", "argmin", "sup", "inf", "lim", "sign", "abs", "clip", "round", "floor"),
        *("det", "tr", "diag", "Diag", "rank", "vec", "tril", "triu", "logdet", "expm", "sqrt", "mod"),
        *("softmax", "sigmoid", "softplus", "relu", "logsumexp", "lse", "sort", "digamma"),
        *("mean", "var", "std", "Var", "Cov", "KL", "Tr", "Re", "Im"),
    )
)
_WORD = re.compile(r"[A-Za-z][A-Za-z]+(?:[-_][A-Za-z]+)*")
_WORDS = re.compile(r"\\text\{[^{}]*\}(?: +\\text\{[^{}]*\})+")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_SHORT_WORDS = frozenset(
    ("do", "An", "As", "At", "By", "If", "In", "Is", "It", "No", "Of", "On", "Or", "To", "We")
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class UnknownSymbol(ValueError):
    """A character that has no LaTeX here: add it to the table."""


def latex(text: str) -> str:
    """A formula of one line as LaTeX.

    Args:
        text: in Unicode; three spaces or more set parts of it apart.

    Raises:
        UnknownSymbol: for a character that is not known.

    >>> latex("W̄ = Σ xᵀ δ")
    '\\\\bar{W} = \\\\sum x^{T} \\\\delta '
    """
    parts = re.split(r" {3,}", text.strip())
    return r" \qquad ".join(_remark(part) or _Reader(_decomposed(part)).read() for part in parts)


def _remark(part: str) -> str:
    """Words in brackets beside a formula, as text; empty for a formula."""
    words = [w for w in _WORD.findall(part) if w not in _OPERATORS]
    remark = part.startswith("(") and part.endswith(")") and len(words) > 1
    return rf"\text{{{part.replace('_', chr(92) + '_')}}}" if remark else ""


def _decomposed(text: str) -> str:
    """Letters with their accents apart: ŷ as y and a combining ^."""
    pairs = ((c, unicodedata.normalize("NFD", c)) for c in text)
    return "".join(d if len(d) == 2 and d[1] in _ACCENTS else c for c, d in pairs)


def _joined(words: re.Match[str]) -> str:
    return rf"\text{{{' '.join(re.findall(r'{([^{}]*)}', words.group()))}}}"


class _Reader:
    """One pass over a formula, atom after atom."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def read(self, until: str = "") -> str:
        parts = []
        while self.at < len(self.text) and self.text[self.at] != until:
            parts.append(self.atom())
        text = _WORDS.sub(_joined, "".join(parts)).replace(", ", r",\ ").replace("; ", r";\quad ")
        # Between formulas a space counts only inside of \text.
        return re.sub(
            r"\\text\{([^{}]*)\}(?= )", r"\\text{\1 }", re.sub(r"(?<= )\\text\{", r"\\text{ ", text)
        )

    def peek(self, ahead: int = 0) -> str:
        return self.text[self.at + ahead : self.at + ahead + 1]

    def atom(self) -> str:
        here = self.peek()
        if here in _SUPERSCRIPTS or here in _SUBSCRIPTS:
            return "{}" + self.scripts()
        if here == " ":
            self.at += 1
            return " "
        if here in _ROOTS:
            self.at += 1
            return rf"\sqrt{_ROOTS[here]}{{{self.group()}}}" + self.scripts()
        if here == "Σ":
            self.at += 1
            # A sum where something follows to be summed, else the covariance.
            here = self.peek()
            summed = here in (*_SUBSCRIPTS, " ", "_") or (here.isalpha() and here not in _SUPERSCRIPTS)
            return (r"\sum " if summed else self.accented(r"\Sigma ")) + self.scripts()
        if here == "`":
            code, self.at = self.text[self.at + 1 :].split("`")[0], self.text.find("`", self.at + 1) + 1
            return rf"\texttt{{{code}}}".replace("_", r"\_")
        word = _WORD.match(self.text, self.at)
        if word and not self.is_product(word.group()):
            self.at = word.end()
            name = word.group().replace("_", r"\_")
            kind = "operatorname" if word.group() in _OPERATORS else "text"
            return rf"\{kind}{{{name}}}" + self.scripts()
        return self.character() + self.scripts()

    def is_product(self, word: str) -> bool:
        """Letters side by side, as in `AB`, `xᵀAx` or `dx`: no word."""
        accented = self.text[self.at + len(word) : self.at + len(word) + 1] in _ACCENTS
        short = len(word) == 2 and word not in _SHORT_WORDS
        pair = short and (word[0] == "d" or accented or any(map(str.isupper, word)))
        return word not in _OPERATORS and (word.isupper() or pair)

    def character(self) -> str:
        here = self.peek()
        self.at += 1
        if here in _SYMBOLS:
            shown = _SYMBOLS[here]
        elif here in _PLAIN or (here.isascii() and here.isalpha()):
            shown = here
        else:
            name = unicodedata.name(here, "?")
            raise UnknownSymbol(f"{here!r} (U+{ord(here):04X}, {name}) in {self.text!r} has no LaTeX.")
        return self.accented(shown)

    def accented(self, shown: str) -> str:
        while self.peek() in _ACCENTS:
            shown = rf"\{_ACCENTS[self.peek()]}{{{shown.strip()}}}"
            self.at += 1
        return shown

    def scripts(self) -> str:
        """What stands above and below the last atom, in Unicode or after `^` and `_`."""
        above, below = "", ""
        while here := self.peek():
            if here in _SUPERSCRIPTS or (here == "⁻" and self.peek(1)):
                above += _SUPERSCRIPTS[here]
                self.at += 1
            elif here in _SUBSCRIPTS:
                below += _SUBSCRIPTS[here]
                self.at += 1
            elif here in "^_" and self.peek(1).strip():
                self.at += 1
                inner = self.group()
                above, below = (above + inner, below) if here == "^" else (above, below + inner)
            elif here == "′":
                above += r"\prime "
                self.at += 1
            else:
                break
        return (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")

    def group(self) -> str:
        """A bracketed group without its brackets, or one atom."""
        if (closing := _CLOSING.get(self.peek())) is None:
            word = re.compile(r"[A-Za-z0-9]+").match(self.text, self.at)
            if word:
                self.at = word.end()
                return word.group()
            return self.character()
        opening, depth, end = self.peek(), 0, self.at
        for end in range(self.at, len(self.text)):
            depth += (self.text[end] == opening) - (self.text[end] == closing)
            if depth == 0:
                break
        inner = _Reader(self.text[self.at + 1 : end]).read()
        self.at = end + 1
        return inner
