"""The pytest plugin: one line in a user's test, the options of its checks, and rules collected as tests."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import funcbp
import funcbp.verify
from funcbp.verify import Cause, Checked, Finding, Report

pytest_plugins = ["pytester"]

RIGHT = Report("my_grad", checked=Checked(elements=3, by_leaf={"x": 3}))
WRONG = Report("my_grad", findings=(Finding("x[0]", Cause.SIGN, Cause.SIGN.advice, 1.0, -1.0),))
UNDECIDABLE = Report("my_grad", undecided=("x: no bound",))

ONE_LINE = """
    def test_mine(funcbp_check):
        assert funcbp_check.gradient(min, of=max, args=(1.0,)).subject == "my_grad"
"""
RULES = """
    from jax import Array
    from jaxtyping import Float

    from funcbp import Rule, domains
    from funcbp.rules import relu

    def double_fwd(p: Float[Array, "*n"]):
        return 2 * p, None

    def double_bwd(residuals, q_ct):
        return (FACTOR * q_ct,)

    double = Rule(
        double_fwd, double_bwd, reference=lambda p: p + p, domain={"p": domains.Normal()}
    )
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on the files of `pytester`, with the plugin and what it calls replaced by recorded calls."""
    # In a checkout that was not installed anew there is no entry point yet.
    installed = entry_points(group="pytest11", name="funcbp")
    plugin = () if installed else ("-p", "_funcbp_pytest")

    def run(*arguments, gives=None):
        calls = []

        def check(candidate, **options):
            calls.append((candidate, options))
            return gives

        if gives is not None:
            for name in ("gradient", "vjp", "jacobian", "chain"):
                monkeypatch.setattr(funcbp, f"check_{name}", check, raising=False)
            monkeypatch.setattr(funcbp.verify, "check_rule", check)
        return pytester.runpytest_inprocess(*plugin, *arguments), calls

    return run


def test_loading_the_plugin_does_not_import_jax():
    code = "import sys, _funcbp_pytest; print({'jax', 'numpy', 'funcbp'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_right_gradient_passes_and_the_report_is_returned(pytester, run):
    pytester.makepyfile(ONE_LINE)
    result, calls = run(gives=RIGHT)
    result.assert_outcomes(passed=1)
    assert calls == [(min, {"of": max, "args": (1.0,)})]
    assert "checks of funcbp" not in result.stdout.str()


def test_a_wrong_gradient_fails_with_the_report_and_the_users_line_only(pytester, run):
    pytester.makepyfile(test_a=ONE_LINE)
    result, _ = run("-v", gives=WRONG)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert funcbp_check.gradient(min, of=max, args=(1.0,)).subject*",
            "E*my_grad: wrong",
            "E*x[[]0[]]: sign. It is minus the truth: flip the sign.",
            "E*expected 1, got -1",
            "test_a.py:2: Failed",
            "=*checks of funcbp*=",
            "wrong * s  my_grad  (test_a.py::test_mine)",
            "FAILED test_a.py::test_mine - Failed: my_grad: wrong",
        ]
    )
    assert "_funcbp_pytest.py:" not in result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "outcomes"),
    [
        (("-W", "default"), {"passed": 1, "warnings": 1}),
        (("--funcbp-undecidable=warn", "-W", "error"), {"failed": 1}),
        (("--funcbp-undecidable=ignore",), {"passed": 1}),
        (("--funcbp-undecidable=raise",), {"failed": 1}),
    ],
)
def test_what_happens_to_the_undecidable(pytester, run, arguments, outcomes):
    pytester.makepyfile(test_a=ONE_LINE)
    result, _ = run(*arguments, gives=UNDECIDABLE)
    result.assert_outcomes(**outcomes)
    assert ("x: no bound" in result.stdout.str()) == ("ignore" not in str(arguments))


def test_options_come_from_call_then_marker_then_command_line_then_configuration(pytester, run):
    pytester.makeini("[pytest]\nfuncbp_samples = 1\nfuncbp_seed = 2\nfuncbp_budget = 3.5")
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.funcbp(seed=30, order=1)

        @pytest.mark.funcbp(order=2)
        def test_mine(funcbp_check):
            funcbp_check.vjp(min, of=max)
            funcbp_check.jacobian(min, of=max, seed=50)
            funcbp_check.chain(min, of=max)
            funcbp_check.rule(min)
    """)
    result, calls = run("--funcbp-samples=20", "--strict-markers", gives=RIGHT)
    result.assert_outcomes(passed=1)
    common = {"samples": 20, "seed": 30, "budget": 3.5, "order": 2, "of": max}
    assert [options for _, options in calls] == [
        common,
        common | {"seed": 50},
        common,
        {"examples": 20, "seed": 30},
    ]


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ("funcbp_samples = many", "funcbp_samples must be int, got 'many'"),
        ("funcbp_undecidable = cry", "funcbp_undecidable must be one of warn, raise, ignore, got 'cry'"),
    ],
)
def test_a_wrong_setting_is_an_error_of_usage(pytester, run, ini, message):
    pytester.makeini(f"[pytest]\n{ini}")
    result, _ = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("20", "takes options by name, got (20,)"),
        ("undecidable='cry'", "undecidable= must be one of warn, raise, ignore, got 'cry'"),
    ],
)
def test_a_wrong_marker_is_an_error_of_the_test(pytester, run, marker, message):
    pytester.makepyfile(f"import pytest\n@pytest.mark.funcbp({marker})\ndef test(funcbp_check):\n    pass")
    result, _ = run(gives=RIGHT)
    result.assert_outcomes(errors=1)
    assert message in result.stdout.str()


def test_rules_are_collected_on_request_only(pytester, run):
    pytester.makepyfile(my_rules=RULES.replace("FACTOR", "2"), reexport="from my_rules import double")
    result, _ = run(gives=RIGHT)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result, calls = run("--funcbp-rules=my_rules", "--funcbp-rules=reexport", "-v", gives=RIGHT)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["collect* 1 item", "my_rules::double PASSED*"])
    assert [rule.name for rule, _ in calls] == ["double"]


def test_collected_rules_are_chosen_by_name_and_by_configuration(pytester, run):
    pytester.makepyfile(my_rules=RULES.replace("FACTOR", "2"))
    pytester.makeini("[pytest]\nfuncbp_rules = my_rules\nfuncbp_seed = 7")
    result, calls = run("-k", "double", gives=RIGHT)
    result.assert_outcomes(passed=1)
    assert [options for _, options in calls] == [{"seed": 7}]
    result, _ = run("-k", "triple", gives=RIGHT)
    result.assert_outcomes(deselected=1)


def test_a_wrong_rule_fails_with_its_report(pytester, run):
    pytester.makepyfile(my_rules=RULES.replace("FACTOR", "-2"))
    result, _ = run("--funcbp-rules=my_rules", "--funcbp-samples=4")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["rule `double`: wrong", "*expected *, got *", "FAILED my_rules::double*"])
    assert "_funcbp_pytest.py" not in result.stdout.str()


@pytest.mark.parametrize(
    ("module", "message"),
    [("nowhere", "cannot import it: No module named 'nowhere'"), ("json", "no Rule of its own")],
)
def test_a_module_without_rules_is_an_error(run, module, message):
    result, _ = run(f"--funcbp-rules={module}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"--funcbp-rules={module}: {message}" in result.stdout.str()


def test_checks_reach_the_junit_file(pytester, run):
    pytester.makepyfile(ONE_LINE)
    run("--junitxml=out.xml", gives=RIGHT)
    assert 'name="funcbp" value="right' in (pytester.path / "out.xml").read_text()
