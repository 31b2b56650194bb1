"""The formulas of the source texts by id, and those that no test names, each with its reason."""

FORMULAS = frozenset(
    f"{text}-{number:0{digits}}"
    for text, first, last, digits in (("S0", 1, 47, 2), ("S1", 1, 35, 2), ("S2", 1, 284, 3), ("C", 1, 43, 2))
    for number in range(first, last + 1)
)

NOT_TESTED: dict[str, str] = {
    "S0-46": "a reference to another page",
    "S0-47": "text around the thread, nothing to compute",
    "S1-34": "what the question is about, in words; its answers are S1-07 and S1-08",
    "S1-35": "text around the thread, nothing to compute",
    "S2-001": "why the subject matters, in words",
    "S2-012": "synonyms of cost, and what n and Σ mean",
    "S2-015": "a sentence about the notation C[w]",
    "S2-032": "what the reader should know",
    "S2-035": "a question about brains",
    "S2-078": "the way to the next section, in words",
    "S2-082": "why nonlinear functions are wanted, in words",
    "S2-145": "brackets and line ends lost in the text; the formulas are under their own ids",
    "S2-148": "a programme, which the rules that follow carry out; those are under their own ids",
}
