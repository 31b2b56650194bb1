"""Every formula of the source texts is named by a test, or says why not."""

import ast
from pathlib import Path

from .ledger import FORMULAS, NOT_TESTED


def named_ids() -> dict[str, set[str]]:
    """Ids in `pytest.mark.formula(...)`, by file; read from the syntax, so that nothing need run."""
    found: dict[str, set[str]] = {}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        found[file.name] = {
            argument.value
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "formula"
            for argument in node.args
            if isinstance(argument, ast.Constant)
        }
    return found


def test_marks_and_reasons_name_formulas_that_exist() -> None:
    for file, ids in named_ids().items():
        assert ids <= FORMULAS, (file, sorted(ids - FORMULAS))
    assert NOT_TESTED.keys() <= FORMULAS
    assert all(NOT_TESTED.values())


def test_every_formula_is_tested_or_says_why_not() -> None:
    tested = set().union(*named_ids().values())
    assert not sorted(FORMULAS - tested - NOT_TESTED.keys())


def test_nothing_that_is_tested_is_listed_as_not_tested() -> None:
    tested = set().union(*named_ids().values())
    assert not sorted(tested & NOT_TESTED.keys())
