"""`funcbp check` and `funcbp rules` as a user meets them: output, exit status, errors."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import funcbp
from funcbp import domains
from funcbp._cli import check as command
from funcbp._cli.printing import jsonable, write_json
from funcbp.cli import main
from funcbp.verify import Cause, Checked, Finding, Report

WRONG = Report(
    "my_grad",
    findings=(Finding("w[1]", Cause.SIGN, "w: minus the truth; flip the sign.", 1.0, -1.0, at={"x": [1.5]}),),
    notes=("x: any numbers",),
)
REPORTS = {
    0: Report("my_grad", checked=Checked(elements=3, by_leaf={"w": 3})),
    1: WRONG,
    3: Report("my_grad", undecided=("w: no bound",)),
}
SOURCE = """
import jax.numpy as jnp

def loss(w, x, power=2):
    return ((x @ w) ** power).sum()

def my_grad(w, x, power=2):
    return -2 * x.T @ (x @ w)

def fwd(w, x):
    return loss(w, x), (w, x)

def bwd(residuals, ct):
    return None, None

def refuses(*args):
    raise RuntimeError("not today")
"""
ARGS = ("--arg", "w=float32[4]", "--arg", "x=float32[3,4] in 0..1")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with SOURCE in mine.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The checks are replaced by ones that record how they are called, and give `calls.report`."""

    class Calls(list):
        report = REPORTS[0]

    calls = Calls()

    def fake(kind):
        def check(candidate, *, progress, **options):
            progress("first call")
            calls.append((kind, candidate, options))
            return calls.report

        return check

    for kind in ("gradient", "vjp", "jacobian"):
        monkeypatch.setattr(funcbp, f"check_{kind}", fake(kind))
    monkeypatch.setattr(command, "check_rule", lambda rule, **options: calls.report)
    return calls


def test_a_wrong_gradient_is_found_from_a_file_alone(mine, capsys):
    status = main(
        ["check", "mine.py::my_grad", "--of", "mine.py::loss", *ARGS, "--samples", "4", "--json", "r.json"]
    )
    out, err = capsys.readouterr()
    assert status == 1
    assert out.startswith("my_grad: wrong\n")
    assert "flip the sign" in out
    assert "\x1b" not in out
    assert err == "checking mine.py::my_grad against mine.py::loss ...\n"
    report = json.loads((mine / "r.json").read_text())
    assert report["report"]["verdict"] == "wrong"
    assert report["report"]["findings"][0]["cause"] == {"name": "SIGN", "value": "sign"}


@pytest.mark.parametrize("status", REPORTS)
def test_the_exit_status_is_the_verdict_and_the_end_says_what_to_do(mine, calls, capsys, status):
    calls.report = REPORTS[status]
    assert main(["check", "mine.py::my_grad", "--of", "mine.py::loss", *ARGS]) == status
    out = capsys.readouterr().out
    assert out.startswith(f"{calls.report}\n\nNext: ")
    line = (
        "    def test_it(funcbp_check):\n        funcbp_check.gradient(my_grad, of=loss, args=(w, x), "
        "domain={'x': funcbp.domains.Uniform(low=0.0, high=1.0)})\n"
    )
    assert (line in out) == (status != 3)


def test_options_reach_the_check(mine, calls):
    options = (
        "--argnums x w --order 2 --samples 5 --seed 6 --budget 7.5 --dtypes float32 --rtol 1e-3 --has-aux"
    )
    assert main(["check", "mine.py::my_grad", "--of", "mine.py::loss", *ARGS, *options.split()]) == 0
    ((kind, candidate, given),) = calls
    assert (kind, candidate.__name__, given.pop("of").__name__) == ("gradient", "my_grad", "loss")
    w, x = given.pop("args")
    assert (w.shape, x.shape) == ((4,), (3, 4))
    assert given == {
        "argnums": (1, 0),
        "domain": {"x": domains.Uniform(0.0, 1.0)},
        "order": 2,
        "samples": 5,
        "seed": 6,
        "budget": 7.5,
        "dtypes": ("float32",),
        "rtol": 1e-3,
        "has_aux": True,
    }


@pytest.mark.parametrize(
    ("target", "options", "kind"),
    [
        ("mine.py::fwd,bwd", (), "vjp"),
        ("funcbp.rules::dense", (), "vjp"),
        ("mine.py::my_grad", ("--kind", "jacobian", "--layout", "vec-rows"), "jacobian"),
    ],
)
def test_kinds(mine, calls, target, options, kind):
    assert main(["check", target, "--of", "mine.py::loss", *ARGS, *options]) == 0
    assert calls[0][0] == kind
    assert calls[0][2].get("layout") == ("vec-rows" if kind == "jacobian" else None)


def test_a_rule_alone_is_checked_against_its_own_reference(calls, capsys):
    assert main(["check", "funcbp.rules::relu"]) == 0
    assert "funcbp_check.rule(relu)" in capsys.readouterr().out


def test_float64_turns_64_bit_types_on(mine, calls):
    before = jax.config.jax_enable_x64
    try:
        main(
            [
                "check",
                "mine.py::my_grad",
                "--of",
                "mine.py::loss",
                "--arg",
                "w=float64[4]",
                "--arg",
                "x=float64[3,4]",
            ]
        )
        assert jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", before)


def test_json_alone_on_stdout(mine, calls, capsys):
    calls.report = WRONG
    assert main(["check", "mine.py::my_grad", "--of", "mine.py::loss", *ARGS, "--json", "-"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["report"]["findings"][0]["at"] == {"x": [1.5]}
    assert document["args"] == ["w=float32[4]", "x=float32[3,4] in 0..1"]


def test_colors_on_a_terminal_only(mine, calls, capsys, monkeypatch):
    calls.report = WRONG
    arguments = ["check", "mine.py::my_grad", "--of", "mine.py::loss", *ARGS]
    main(arguments)
    plain = capsys.readouterr().out
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    main(arguments)
    out, err = capsys.readouterr()
    assert "my_grad: \x1b[1;31mwrong\x1b[0m" in out
    assert "\x1b[31m-1\x1b[0m" in out
    assert "first call" in err
    uncolored = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert uncolored == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mine.py::my_gard", "--of", "mine.py::loss"), "did you mean 'my_grad'?"),
        (("mine.py::my_grad",), "--of is missing"),
        (("funcbp.rules::relu", "--arg", "p=float32[3]"), "--arg belongs to --of"),
        (("mine.py::my_grad", "--of", "mine.py::fwd,bwd"), "must be one function"),
        (("mine.py::fwd,bwd", "--of", "mine.py::loss", *ARGS, "--kind", "gradient"), "checked as vjp"),
        (("mine.py::my_grad", "--of", "mine.py::loss", "--arg", "w=float32[4]"), "needs x"),
        (("mine.py::my_grad", "--of", "mine.py::fwd", *ARGS), "must return a scalar"),
    ],
)
def test_errors_of_usage_are_one_sentence(mine, capsys, arguments, message):
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "error: " in err
    assert "Traceback" not in err
    assert not out


def test_a_crash_in_the_users_code_shows_its_lines(mine, capsys, monkeypatch):
    arguments = ["check", "mine.py::my_grad", "--of", "mine.py::refuses", "--arg", "w=1.5"]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert 'mine.py", line 17, in refuses' in err
    assert "RuntimeError: not today" in err
    assert "site-packages" not in err
    monkeypatch.setattr(funcbp, "check_gradient", lambda candidate, of, **options: of())
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert 'mine.py", line 17, in refuses' in err
    assert err.endswith("RuntimeError: not today\n")


def test_options_that_there_are_not(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "mine.py::my_grad", "--nonsense"])
    assert stopped.value.code == 2


def test_rules_as_a_table_a_family_and_one(capsys):
    assert main(["rules"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["rule", *funcbp.catalogue()]
    assert main(["rules", "normalization"]) == 0
    family = capsys.readouterr().out
    assert "layer_norm" in family
    assert "dense" not in family
    assert main(["rules", "relu"]) == 0
    one = capsys.readouterr().out
    assert one.startswith("relu(p: ")
    assert "kink at 0: p = 0" in one
    assert "elementwise.py:" in one
    assert main(["rules", "layernorm"]) == 2
    assert "did you mean layer_norm?" in capsys.readouterr().err


def test_rules_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["rules", "affine"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1m" in out
    assert "┃" in out


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "funcbp", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("funcbp ")


@pytest.mark.parametrize("missing", ["rich", "tyro"])
def test_without_the_extra_the_error_says_what_to_install(missing, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.startswith((f"{missing}.", "funcbp._cli.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["rules"]) == 2
    err = capsys.readouterr().err
    assert f'needs {missing}: pip install "funcbp[cli]"' in err


def test_json_is_strict_and_written_whole(tmp_path):
    value = {
        "bf16": jax.numpy.ones(2, "bfloat16"),
        "nan": np.nan,
        "key": jax.random.key(3),
        "z": 1 - 2j,
        "f": max,
    }
    assert jsonable(value) == {
        "bf16": [1.0, 1.0],
        "nan": "NaN",
        "key": [0, 3],
        "z": {"real": 1.0, "imag": -2.0},
        "f": "<built-in function max>",
    }
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(RecursionError):
        write_json((loop := []).append(loop) or loop, str(path))
    assert path.read_text() == "old"
    write_json({"x": np.float32(-np.inf)}, str(path))
    assert json.loads(path.read_text()) == {"x": "-Infinity"}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
