"""Checkpoints: any tree of arrays in one file, written whole or not at all, without pickle."""

import json
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jax import numpy as jnp

__all__ = ["checkpoint_metadata", "load_checkpoint", "save_checkpoint"]

PyTree = Any
StrPath = str | os.PathLike[str]

FORMAT = {"format": "funcbp checkpoint", "version": 1}
SHOWN = 8


def save_checkpoint(path: StrPath, tree: PyTree, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a tree of arrays to one file, so that a reader sees the old file or the new one, never a part.

    The file is an npz: the leaves, and a JSON manifest with each one's path, shape and dtype. It is written
    under another name in the same directory, synced to disk and renamed; a process that is killed meanwhile
    leaves the old checkpoint, and perhaps a `.NAME.….tmp` beside it.

    Args:
        path: of the file; its directory is created.
        tree: arrays of JAX or numpy, random keys, Python numbers; every dtype of JAX.
        metadata: what JSON can hold, to be read back by `checkpoint_metadata` (tuples as lists).

    Raises:
        TypeError: for a leaf that is not an array, or metadata that JSON does not have.
        ValueError: for an array that is spread over several processes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.npz"
    >>> params = {"w": jnp.ones((2, 3), jnp.bfloat16), "key": jax.random.key(7)}
    >>> save_checkpoint(path, params, metadata={"step": 10})
    >>> checkpoint_metadata(path)
    {'step': 10}
    >>> load_checkpoint(path, like=params)["w"].dtype
    dtype(bfloat16)
    """
    entries, arrays = [], {}
    for i, (where, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(tree)[0]):
        entry, arrays[f"leaf{i}"] = _stored(_name(where), leaf)
        entries.append(entry)
    manifest = FORMAT | {"leaves": entries, "metadata": dict(metadata or {})}
    try:
        text = json.dumps(manifest, ensure_ascii=False)
    except TypeError as error:
        raise TypeError(f"save_checkpoint: `metadata` must be what JSON can hold: {error}.") from None
    with atomic_write(path) as file:
        np.savez(file, manifest=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_checkpoint(path: StrPath, like: PyTree) -> PyTree:
    """Read a tree back, in the structure of `like`.

    Args:
        path: of a file that `save_checkpoint` wrote.
        like: a tree with the structure, shapes and dtypes that are expected: freshly initialized parameters,
            or what `jax.eval_shape` gives. Where it has a numpy array or a Python number, so has the result;
            elsewhere a JAX array, placed as the one in `like` if that has a placement of its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged or no checkpoint; for leaves that are missing, left over or of
            another shape or dtype, by name.
    """
    manifest, arrays = _read(path, with_leaves=True)
    saved = {entry["path"]: (entry, array) for entry, array in zip(manifest["leaves"], arrays, strict=True)}
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    wanted = {_name(where): leaf for where, leaf in leaves}
    problems = [f"{name}: not in the checkpoint" for name in wanted if name not in saved]
    problems += [f"{name}: in the checkpoint, but not in `like`" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        entry = saved[name][0]
        has, needs = (entry["dtype"], tuple(entry["shape"])), _kind(name, wanted[name])
        if has != needs:
            problems.append(f"{name}: {_show(has)} in the checkpoint, {_show(needs)} in `like`")
    if problems:
        shown = sorted(problems)[:SHOWN] + [f"… and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
        raise ValueError(f"load_checkpoint: {os.fspath(path)} does not fit `like`:\n  " + "\n  ".join(shown))
    return treedef.unflatten([_restored(*saved[name], leaf) for name, leaf in wanted.items()])


def checkpoint_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata that were given to `save_checkpoint`; the leaves are not read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged or no checkpoint.
    """
    return _read(path, with_leaves=False)[0]["metadata"]


@contextmanager
def atomic_write(path: StrPath) -> Generator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends, not if the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself is on disk only when the directory is; not every system can sync a directory.
    with suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _name(where: jax.tree_util.KeyPath) -> str:
    # Quoted keys, not the dotted form: {"a.b": …} and {"a": {"b": …}} must differ.
    return jax.tree_util.keystr(where) or "(root)"


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kind(name: str, leaf: Any) -> tuple[str, tuple[int, ...]]:
    """dtype and shape as the manifest has them."""
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        if not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(f"leaf {name} is a {type(leaf).__name__}, not an array.")
        leaf = np.asarray(leaf)
    known = _is_key(leaf) or any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.number, np.bool_))
    if not known:
        raise TypeError(
            f"leaf {name} has dtype {leaf.dtype}; only numbers, booleans and random keys are arrays of JAX."
        )
    return leaf.dtype.name, tuple(leaf.shape)


def _show(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0]}[{', '.join(map(str, kind[1]))}]"


def _stored(name: str, leaf: Any) -> tuple[dict[str, Any], np.ndarray]:
    dtype, shape = _kind(name, leaf)
    entry: dict[str, Any] = {"path": name, "dtype": dtype, "shape": list(shape)}
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise ValueError(f"save_checkpoint: leaf {name} is spread over several processes; gather it first.")
    if _is_key(leaf):
        entry["random"] = str(jax.random.key_impl(leaf))
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    if array.dtype.kind == "V":  # bfloat16, float8, int4, …: numpy would forget which
        array = array.view(f"u{array.dtype.itemsize}")
    return entry, array


def _restored(entry: dict[str, Any], array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["random"])
    if not hasattr(like, "dtype"):
        return array.item()
    if array.dtype.name != entry["dtype"]:
        array = array.view(jnp.dtype(entry["dtype"]))
    if isinstance(like, np.ndarray | np.generic):
        return array
    placed = like.committed if isinstance(like, jax.Array) else getattr(like, "sharding", None) is not None
    restored = jax.device_put(array, like.sharding) if placed else jnp.array(array)
    if restored.dtype != array.dtype:
        raise ValueError(
            f"load_checkpoint: leaf {entry['path']} is {array.dtype}; enable it with jax_enable_x64."
        )
    return restored


def _read(path: StrPath, *, with_leaves: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            manifest = json.loads(archive["manifest"].tobytes())
            version = {k: manifest[k] for k in FORMAT}
            arrays = [archive[f"leaf{i}"] for i in range(len(manifest["leaves"]))] if with_leaves else []
        # For bytes that are not what was written numpy, zipfile and json raise a dozen kinds between them.
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{os.fspath(path)} is damaged, or was not written by save_checkpoint ({cause})."
            ) from None
    if version != FORMAT:
        raise ValueError(
            f"{os.fspath(path)} has the format {version}; this version of funcbp reads {FORMAT}."
        )
    return manifest, arrays
