"""Functions come out of files by path, whatever else is called like them."""

import sys

import pytest

from funcbp._cli.errors import UsageError
from funcbp._cli.targets import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_one_function_a_pair_and_what_has_dots(folder):
    (folder / "mine.py").write_text("def f(): return 1\ndef g(): return 2\nclass C:\n    def h(): return 3\n")
    assert load("mine.py::f")() == 1
    assert load(f"{folder}/mine.py::C.h")() == 3
    first, second = load("mine.py::f,g")
    assert (first(), second()) == (1, 2)
    assert load("mine.py::f") is first


def test_equal_names_do_not_collide(folder):
    for place in ("a", "b"):
        (folder / place).mkdir()
        (folder / place / "json.py").write_text(f"def f(): return {place!r}\n")
    assert [load(f"{place}/json.py::f")() for place in "ab"] == ["a", "b"]
    assert not hasattr(__import__("json"), "f")


def test_a_file_finds_its_neighbors_and_its_package(folder):
    package = folder / "project_x" / "inner"
    package.mkdir(parents=True)
    (folder / "project_x" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "helper_x.py").write_text("value = 4\n")
    (package / "mine.py").write_text("from .helper_x import value\ndef f(): return value\n")
    assert load("project_x/inner/mine.py::f")() == 4
    assert load("project_x.inner.mine::f")() == 4
    (folder / "neighbor_x.py").write_text("value = 5\n")
    (folder / "mine.py").write_text("from neighbor_x import value\ndef f(): return value\n")
    assert load("mine.py::f")() == 5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mine.py", "write it as path/to/file.py::name"),
        ("mime.py::f", r"--of mime\.py: there is no such file; did you mean mine\.py\?$"),
        ("else.py::f", r"there is no such file; in .* there are mine\.py\.$"),
        ("nowhere/mine.py::f", r"nor a folder nowhere\.$"),
        ("nowhere.at_all::f", "neither a file nor a module"),
        ("mine.py::g", r"mine\.py has no 'g'; there is loss_of\.$"),
        ("mine.py::loss_fo", r"did you mean 'loss_of'\?"),
        ("mine.py::number", r"is no function but int 3"),
        ("mine.py::loss_of,loss_of,loss_of", "not 3"),
    ],
)
def test_errors_name_the_place_and_offer_what_is_there(folder, target, message):
    (folder / "mine.py").write_text("from os.path import join\nnumber = 3\ndef loss_of(x): return x\n")
    with pytest.raises(UsageError, match=message):
        load(target, "--of")


def test_a_file_that_breaks_shows_its_own_lines_only(folder):
    (folder / "mine.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(UsageError, match=r"mine\.py cannot be imported:\n") as caught:
        load("mine.py::f")
    assert "ZeroDivisionError" in str(caught.value)
    assert "line 2, in f" in str(caught.value)
    assert "importlib" not in str(caught.value)
    (folder / "other.py").write_text("import no_such_module\n")
    with pytest.raises(UsageError, match="No module named 'no_such_module'"):
        load("other.py::f")
