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
}
