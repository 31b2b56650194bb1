"""`--arg`: what it means, how it meets a function's parameters, and what is said when it does not."""

import jax
import numpy as np
import pytest

from funcbp import domains
from funcbp._cli.arguments import needs_x64, parse, values_of
from funcbp._cli.call import bind, guess_kind, positions
from funcbp._cli.errors import UsageError
from funcbp.rules import relu


def value(text, seed=0):
    given = parse(text)
    return values_of([given], seed)[given.name]


@pytest.mark.parametrize(
    ("text", "domain", "shape", "dtype"),
    [
        ("x=float32[32,4]", None, (32, 4), "float32"),
        ("x = bfloat16[ 3 , ]", None, (3,), "bfloat16"),
        ("x=complex64[2]", None, (2,), "complex64"),
        ("x=bool[5]", domains.Booleans(), (5,), "bool"),
        ("y=int32[32] in 0..9", domains.Integers(0, 10), (32,), "int32"),
        ("y=int8[] in -1..1", domains.Integers(-1, 2), (), "int8"),
        ("x=float64[2] in 0..1", domains.Uniform(0.0, 1.0), (2,), "float64"),
        ("x=float32[2] in -.5..1e3", domains.Uniform(-0.5, 1000.0), (2,), "float32"),
        ("x=float32[2] in normal(0.1)", domains.Normal(0.1), (2,), "float32"),
        ("x=float32[2] in positive", domains.Positive(), (2,), "float32"),
        ("x=float32[2,3] in simplex", domains.Simplex(), (2, 3), "float32"),
        ("x=float32[2] in away(0, 1)", domains.AwayFrom((0.0, 1.0)), (2,), "float32"),
    ],
)
def test_arrays_are_drawn_from_their_domain(text, domain, shape, dtype):
    assert parse(text).domain == domain
    array = value(text)
    assert (array.shape, array.dtype.name) == (shape, dtype)
    np.testing.assert_array_equal(array, value(text))
    assert array.size < 5 or (array != value(text, seed=1)).any()


def test_both_ends_of_a_range_of_integers_come_up():
    assert set(value("y=int32[100] in 0..2").tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=0.5", 0.5), ("a=3", 3), ("a=true", True), ("a=None", None), ("a=mean", "mean"), ("a='b c'", "b c")],
)
def test_literals(text, expected):
    assert value(text) == expected
    assert type(value(text)) is type(expected)


def test_lists_are_arrays_and_keys_are_keys():
    np.testing.assert_array_equal(value("x=[[1, 2], [3, 4]]"), [[1, 2], [3, 4]])
    assert value("x=[0.5]").dtype == np.float32
    assert value("key=key(3)") == jax.random.key(3)


def test_arrays_in_files(tmp_path):
    array = np.arange(3, dtype=np.float16)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "two.npz", a=array, b=2 * array)
    assert value(f"x=@{tmp_path}/x.npy").dtype == np.float16
    np.testing.assert_array_equal(value(f"x=@{tmp_path}/two.npz:b"), 2 * array)
    assert parse(f"x=@{tmp_path}/x.npy in positive").domain == domains.Positive()
    with pytest.raises(UsageError, match=r"there are \['a', 'b'\]"):
        parse(f"x=@{tmp_path}/two.npz")
    with pytest.raises(UsageError, match="no file"):
        parse("x=@nowhere.npy")
    (tmp_path / "bad.npy").write_text("text")
    with pytest.raises(UsageError, match="cannot be read"):
        parse(f"x=@{tmp_path}/bad.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "write it as name=value"),
        ("2x=3", "write it as name=value"),
        ("x=flot32[3]", "'flot32' is no dtype"),
        ("x=float32[a]", r"\[a\] is no shape"),
        ("x=int32[3]", r"say which integers, both ends included: 'x=int32\[3\] in 0\.\.9'"),
        ("x=int32[3] in normal", "'normal' is no domain for int32"),
        ("x=int32[3] in 5..2", "no domain"),
        ("x=float32[3] in 1..1", "no domain"),
        ("x=float32[3] in gamma(2)", r"'gamma\(2\)' is no domain for float32; there are 0\.\.9"),
        ("x=3..4", "not understood"),
        ("x=[[1], [2, 3]]", "different lengths"),
        ("x=['a']", "lists of numbers"),
    ],
)
def test_what_is_not_understood_is_said(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_dots_lead_into_trees():
    given = [parse(t) for t in ("p.w=1.5", "p.layers.1.b=2.5", "p.layers.0.b=3.5", "x=4.5")]
    assert values_of(given, 0) == {"p": {"w": 1.5, "layers": [{"b": 3.5}, {"b": 2.5}]}, "x": 4.5}
    for wrong, message in [
        (("x=1", "x=2"), "given twice"),
        (("x=1", "x.w=2"), "x is an array already"),
        (("x.1=1",), r"entries 0 to 0, got \[1\]"),
    ]:
        with pytest.raises(UsageError, match=message):
            values_of([parse(t) for t in wrong], 0)


def test_64_bits_are_noticed():
    assert [needs_x64(parse(t)) for t in ("x=float64[2]", "x=float32[2]", "x=0.5")] == [True, False, False]


def given(*texts):
    return [parse(text) for text in texts]


def test_arguments_meet_parameters():
    def function(w, x, scale=2.0, *, reduction="sum"):
        return w, x, scale, reduction

    call = bind(function, "f", given("x=1.5", "w=float32[2] in 0..1", "reduction=mean"), 0)
    assert call.names == ("w", "x")
    assert call.args[1] == 1.5
    assert call.static == {"reduction": "mean"}
    assert call.domain == {0: domains.Uniform(0.0, 1.0)}


def test_defaults_stand_in_for_what_is_left_out_before_something_given():
    call = bind(lambda a, b=2.0, c=3.0, d=4.0: a, "f", given("a=1.0", "c=5.0"), 0)
    assert call.args == (1.0, 2.0, 5.0)


def test_variadic_functions_take_what_comes():
    call = bind(lambda *arrays: arrays, "f", given("a=1.0", "b=2.0"), 0)
    assert (call.names, call.args, call.static) == (("a", "b"), (1.0, 2.0), {})
    call = bind(lambda a, **options: a, "f", given("a=1.0", "b=2.0"), 0)
    assert (call.names, call.args, call.static) == (("a",), (1.0,), {"b": 2.0})


def test_one_domain_is_for_all_of_a_tree_or_for_none():
    tree = given("p.a=float32[1] in 0..1", "p.b=float32[1] in 0..1")
    assert bind(lambda p: p, "f", tree, 0).domain == {0: domains.Uniform()}
    tree = given("p.a=float32[1] in 0..1", "p.b=float32[1]")
    assert bind(lambda p: p, "f", tree, 0).domain == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("z=1.0", "w=1.0", "x=1.0"), r"f has no such argument; it has w, x\."),
        (("w=1.0",), r"f needs x: .* as --arg x=float32\[32,4\]"),
    ],
)
def test_arguments_that_do_not_fit(texts, message):
    with pytest.raises(UsageError, match=message):
        bind(lambda w, x: w, "f", given(*texts), 0)


def test_kinds_are_guessed_and_positions_found():
    custom = jax.custom_vjp(lambda x: x)
    assert [guess_kind(c) for c in (relu, custom, (max, min), max)] == ["vjp", "vjp", "vjp", "gradient"]
    assert positions(("x", "0"), ("w", "x")) == (1, 0)
    with pytest.raises(UsageError, match="--argnums y: there are 0 to 1: w, x"):
        positions(("y",), ("w", "x"))
