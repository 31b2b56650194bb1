"""`funcbp derive` as a user meets it: what it prints and writes, exit status, errors."""

import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import funcbp
from funcbp._derive import Derivation
from funcbp.cli import main
from funcbp.verify import Cause, Finding, Report

SOURCE = """
import jax
import jax.numpy as jnp

def loss(A, x, y):
    return y @ jnp.tanh(A @ x)

def norm(x, power=2, scale=1.0):
    return scale * (x ** power).sum()

def cross_entropy(Z, Y):
    return -jnp.mean(jnp.sum(Y * jax.nn.log_softmax(Z), axis=1))

def sorts(x):
    return jnp.sum(jnp.sort(x) * x)

def tree(p):
    return jnp.sum(p["w"] ** 2)

def crashes(x):
    raise RuntimeError("not today")
"""
ARGS = ("--arg", "A=float32[2,3]", "--arg", "x=float32[3]", "--arg", "y=float32[2]")
LOSS = ("derive", "mine.py::loss", *ARGS, "--wrt", "A")
VOID = ("meta", "br")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with SOURCE in mine.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def expected(mine):
    """The derivation of `loss`, by the library."""
    import jax
    from jax import numpy as jnp

    shapes = ((2, 3), (3,), (2,))
    specs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return funcbp.derive(lambda A, x, y: y @ jnp.tanh(A @ x), *specs, wrt="A")


class Page(HTMLParser):
    """The elements, texts and attributes of a page; every element has to be closed in order."""

    def __init__(self, source):
        super().__init__()
        self.open, self.seen, self.links, self.text = [], [], [], ""
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ((), str),
        (("--latex",), Derivation.latex),
        (("--markdown",), Derivation.markdown),
        (("--python",), Derivation.source),
    ],
)
def test_what_the_library_gives_is_printed(expected, capsys, options, written):
    assert main([*LOSS, *options]) == 0
    out, err = capsys.readouterr()
    assert out == written(expected).rstrip() + "\n"
    assert not err


def test_index_notation(mine, capsys):
    assert main([*LOSS, "--style", "index"]) == 0
    assert "∂C/∂A_ij = δ_i x_j" in capsys.readouterr().out


def test_numbers_with_a_point_are_scalars_and_others_constants(mine, capsys):
    assert main(["derive", "mine.py::norm", "--arg", "x=float32[3]", "--arg", "power=3"]) == 0
    assert "Given x (m)\n" in capsys.readouterr().out
    arguments = ("--arg", "x=float32[3]", "--arg", "scale=0.5", "--wrt", "x", "scale")
    assert main(["derive", "mine.py::norm", *arguments]) == 0
    out = capsys.readouterr().out
    assert "Given x (m), scale (scalar)\n" in out
    assert "∂C/∂x = 2 scale x" in out


def test_assumptions_are_used_and_checked_on_what_is_given(mine, capsys):
    arguments = ["derive", "mine.py::cross_entropy", "--wrt", "Z", "--assume", "rows of Y sum to one"]
    assert main([*arguments, "--arg", "Z=float32[3,4]", "--arg", "Y=float32[3,4]"]) == 0
    assert "∂C/∂Z = (1/m) (softmax(Z) − Y)" in capsys.readouterr().out
    assert main([*arguments, "--arg", "Z=float32[3,4]", "--arg", "Y=float32[3,4] in simplex"]) == 0
    capsys.readouterr()
    np.save("y.npy", np.ones((3, 4), np.float32))
    assert main([*arguments, "--arg", "Z=float32[3,4]", "--arg", "Y=@y.npy"]) == 2
    assert "of `Y` it is declared that the rows sum to one" in capsys.readouterr().err


def test_the_check_is_printed_and_its_verdict_is_the_status(mine, capsys, monkeypatch):
    assert main([*LOSS, "--check"]) == 0
    out, err = capsys.readouterr()
    assert "\n\nderivation: right\n" in out
    assert err == "checking the gradient of mine.py::loss ...\n"
    wrong = Report("derivation", findings=(Finding("A", Cause.SIGN, "flip the sign.", 1.0, -1.0),))
    for report, status in ((wrong, 1), (Report("derivation", undecided=("A",)), 3)):
        monkeypatch.setattr(Derivation, "check", lambda self, seed, report=report: report)
        assert main([*LOSS, "--check", "--python"]) == status
        out, err = capsys.readouterr()
        assert "derivation: " not in out
        assert f"derivation: {report.verdict}" in err


def test_the_page_holds_everything_and_needs_nothing(expected, mine, capsys):
    assert main([*LOSS, "--html", "page.html", "--check"]) == 0
    assert capsys.readouterr().out.startswith(str(expected))
    source = (mine / "page.html").read_text(encoding="utf-8")
    page = Page(source)
    assert not page.links
    assert source.count("http") == source.count('xmlns="http://www.w3.org/1998/Math/MathML"')
    assert not {"script", "link", "img", "iframe", "object"} & {*page.seen}
    assert page.seen.count("math") >= 2 * 6
    rules = {line.reason for line in expected._lines("latex")} - {""}
    assert rules
    assert all(rule in page.text for rule in rules)
    assert expected.source().rstrip() in page.text
    assert "derivation: right" in page.text
    assert "Given A (m × n), x (n), y (m)" in page.text
    boxed = source.partition('<div class="results">')[2].partition("</div>")[0]
    words = "".join(ElementTree.fromstring(boxed.strip()).itertext())
    assert "∂C∂A" in words.replace(" ", "")
    assert "⊤" in words


def test_the_page_alone_on_stdout(mine, capsys):
    assert main([*LOSS, "--html", "-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<!DOCTYPE html>")
    assert out.endswith("</html>\n")


def test_a_page_is_whole_or_not_there(mine, capsys):
    (mine / "folder").mkdir()
    assert main([*LOSS, "--html", "folder"]) == 2
    assert main([*LOSS, "--html", "nowhere/page.html"]) == 2
    err = capsys.readouterr().err
    assert "cannot write folder: " in err
    assert "cannot write nowhere/page.html: " in err
    assert "Traceback" not in err
    assert {path.name for path in mine.iterdir()} <= {"mine.py", "folder", "__pycache__"}


def test_without_the_converter_the_error_says_what_to_install(mine, capsys, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("latex2mathml.", "funcbp._derive._page")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    assert main([*LOSS, "--html", "page.html"]) == 2
    assert 'needs latex2mathml: pip install "funcbp[docs]"' in capsys.readouterr().err
    assert main(LOSS) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sorts", "--arg", "x=float32[3]"), "the operation `sort` at {place}:15 is not supported"),
        (("loss,norm", "--arg", "x=float32[3]"), "only one function is derived"),
        (("loss", "--arg", "x=float32[3]"), "needs A, y"),
        (("loss", *ARGS, "--latex", "--python"), "--latex and --python are both for stdout"),
        (("loss", *ARGS, "--wrt", "B"), "wrt has 'B'"),
        (("loss", *ARGS, "--assume", "A is nice"), "cannot read 'A is nice'"),
    ],
)
def test_what_is_refused_is_one_line(mine, capsys, arguments, message):
    target, *rest = arguments
    assert main(["derive", f"mine.py::{target}", *rest]) == 2
    out, err = capsys.readouterr()
    assert message.format(place=mine / "mine.py") in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out


def test_a_tree_is_given_leaf_by_leaf(mine, capsys):
    assert main(["derive", "mine.py::tree", "--arg", "p.w=float32[3]", "--wrt", "p", "--python"]) == 0
    assert "w, = jax.tree.leaves(p)" in capsys.readouterr().out


def test_a_crash_in_the_users_code_shows_its_lines(mine, capsys):
    assert main(["derive", "mine.py::crashes", "--arg", "x=float32[3]"]) == 2
    err = capsys.readouterr().err
    assert 'mine.py", line 21, in crashes' in err
    assert err.count("RuntimeError: not today") == 1
