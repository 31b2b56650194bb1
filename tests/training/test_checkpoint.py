import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import layers
from funcbp.training import checkpoint_metadata, load_checkpoint, save_checkpoint

DTYPES = ["bool", "int4", "int8", "uint32", "float16", "bfloat16", "float8_e4m3fn", "float32", "complex64"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoint.npz"


def assert_same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def contents() -> dict[str, Any]:
    network = layers.chain(layers.dense(3), layers.activation("tanh"), layers.dense(2))
    params, state = network.init(jax.random.key(0), jax.ShapeDtypeStruct((4, 5), jnp.float32))
    return {
        "params": params,
        "state": state,
        "opt_state": optax.adamw(1e-3).init(params),
        "keys": [jax.random.split(jax.random.key(1, impl=impl), 3) for impl in ("threefry2x32", "rbg")],
        "dtypes": {name: jnp.arange(6).reshape(2, 3).astype(name) for name in DTYPES},
        "odd": jnp.array([jnp.nan, -jnp.nan, -0.0, jnp.inf, 1e-45], jnp.float32),
        "numpy": np.arange(3.0),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": jnp.zeros((0, 3)),
        "number": 3,
        "flag": True,
        "rate": 0.1,
        "nothing": None,
        "1": {"a.b": jnp.zeros(()), "a": {"b": jnp.ones(())}},
    }


def test_round_trip_is_exact(path: Path) -> None:
    tree = contents()
    save_checkpoint(path, tree, metadata={"step": 3, "name": "δ"})
    assert_same_bits(load_checkpoint(path, like=tree), tree)
    assert checkpoint_metadata(path) == {"step": 3, "name": "δ"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_without_pickle(path: Path) -> None:
    save_checkpoint(path, contents())
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                assert np.lib.format.read_magic(file) == (1, 0)
                assert not np.lib.format.read_array_header_1_0(file)[2].hasobject


def test_like_may_be_specs(path: Path) -> None:
    def init() -> dict[str, jax.Array]:
        return {"w": jnp.ones((2, 3), jnp.bfloat16), "key": jax.random.key(5)}

    save_checkpoint(path, init())
    assert_same_bits(load_checkpoint(path, like=jax.eval_shape(init)), init())


def test_placement_follows_like(path: Path) -> None:
    tree = {"free": jnp.ones(2), "placed": jax.device_put(jnp.ones(2), jax.devices()[0])}
    save_checkpoint(path, tree)
    loaded = load_checkpoint(path, like=tree)
    assert [loaded[k].committed for k in tree] == [False, True]
    assert loaded["placed"].sharding == tree["placed"].sharding


def test_float64(path: Path) -> None:
    with jax.enable_x64(True):
        tree = {"x": jnp.arange(3.0) / 3}
        save_checkpoint(path, tree)
        assert_same_bits(load_checkpoint(path, like=tree), tree)
    with pytest.raises(ValueError, match=r"leaf \['x'\] is float64; enable it with jax_enable_x64"):
        load_checkpoint(path, like={"x": jax.ShapeDtypeStruct((3,), np.float64)})


def test_what_does_not_fit_is_named(path: Path) -> None:
    save_checkpoint(path, {"a": jnp.ones(3), "b": (jnp.ones((2, 2)), jnp.ones(1)), "k": jax.random.key(0)})
    like = {
        "a": jnp.ones(3, jnp.int32),
        "b": (jnp.ones((2, 4)),),
        "c": jnp.ones(1),
        "k": jax.random.key(0, impl="rbg"),
    }
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_checkpoint(path, like=like)
    assert str(caught.value).splitlines() == [
        f"load_checkpoint: {path} does not fit `like`:",
        "  ['a']: float32[3] in the checkpoint, int32[3] in `like`",
        "  ['b'][0]: float32[2, 2] in the checkpoint, float32[2, 4] in `like`",
        "  ['b'][1]: in the checkpoint, but not in `like`",
        "  ['c']: not in the checkpoint",
        "  ['k']: key<fry>[] in the checkpoint, key<rbg>[] in `like`",
    ]


def test_many_problems_are_cut_short(path: Path) -> None:
    save_checkpoint(path, {})
    with pytest.raises(ValueError, match=r"\n  … and 12 more$"):
        load_checkpoint(path, like=[jnp.ones(1)] * 20)


@pytest.mark.parametrize(
    "leaf", ["text", object(), np.array(["text"]), np.array([None]), np.zeros(2, "datetime64[s]")]
)
def test_other_leaves_are_refused(path: Path, leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"leaf \['a'\]\[1\] (is|has)"):
        save_checkpoint(path, {"a": [jnp.ones(1), leaf]})
    assert not path.exists()


def test_metadata_must_be_json(path: Path) -> None:
    with pytest.raises(TypeError, match="`metadata` must be what JSON can hold"):
        save_checkpoint(path, {}, metadata={"x": object()})


def test_missing_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.npz"):
        load_checkpoint(path, like={})


def test_damage_is_noticed(path: Path) -> None:
    tree = {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones(3, jnp.bfloat16)}
    save_checkpoint(path, tree, metadata={"step": 1})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged, or was not written by save_checkpoint"):
            load_checkpoint(path, like=tree)
    noticed = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            loaded = load_checkpoint(path, like=tree)
        except ValueError:
            noticed += 1
        else:
            # A zip file has bytes that mean nothing here, such as dates.
            assert_same_bits(loaded, tree)
    assert noticed > len(whole) / 7 / 2


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04N.", "npy", "npz"])
def test_other_files_are_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "other"
    with open(path, "wb") as file:
        if content == "npy":
            np.save(file, np.ones(3))
        elif content == "npz":
            np.savez(file, w=np.ones(3))
        elif isinstance(content, bytes):
            file.write(content)
    with pytest.raises(ValueError, match="other is damaged, or was not written by save_checkpoint"):
        load_checkpoint(path, like={})


def test_later_format_is_refused(path: Path) -> None:
    path.parent.mkdir()
    manifest = {"format": "funcbp checkpoint", "version": 2, "leaves": [], "metadata": {}}
    with open(path, "wb") as file:
        np.savez(file, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8))
    with pytest.raises(ValueError, match=r"has the format .*2.*; this version of funcbp reads .*1"):
        checkpoint_metadata(path)


def test_failed_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, {"w": jnp.ones(3)})

    def full_disk(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"w": jnp.zeros(3)})
    monkeypatch.undo()
    assert load_checkpoint(path, like={"w": jnp.zeros(3)})["w"].tolist() == [1, 1, 1]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
