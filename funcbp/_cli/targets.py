"""`path/to/file.py::name`: functions out of files that are no installed package."""

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError

__all__ = ["load"]


def load(target: str, option: str = "target") -> Any:
    """What `FILE.py::NAME` or `package.module::NAME` stands for; `NAME,NAME` gives a pair.

    Args:
        target: as on the command line; a path is relative to the working directory, a name may have dots.
        option: what to call it in errors.

    Returns:
        The attribute, or a tuple of two for a pair.

    Raises:
        UsageError: if the file or the attribute is not there, with what is; if importing it fails, with the
            traceback.
    """
    place, separator, names = target.partition("::")
    if not separator or not place or not names:
        raise UsageError(f"{option} {target!r}: write it as path/to/file.py::name.")
    module = _module(place, option)
    found = tuple(_attribute(module, name.strip(), place) for name in names.split(","))
    if len(found) > 2:
        raise UsageError(f"{option} {target!r}: one name, or two for a pair FWD,BWD; not {len(found)}.")
    return found[0] if len(found) == 1 else found


def _module(place: str, option: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py" and not path.exists():
        return _imported(place, place)
    if not path.is_file():
        raise UsageError(f"{option} {place}: there is no such file{_near(path)}")
    path = path.resolve()
    root, dotted = _package_of(path)
    if dotted is not None:
        return _in_package(path, root, dotted)
    return _alone(path, place)


def _near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f", nor a folder {folder}."
    files = sorted(p.name for p in folder.glob("*.py"))
    close = difflib.get_close_matches(path.name, files, n=1)
    if close:
        return f"; did you mean {folder / close[0]}?"
    return f"; in {folder.resolve()} there are {_listed(files)}."


def _listed(names: list[str]) -> str:
    shown = names[:20] + ["..."] * (len(names) > 20)
    return ", ".join(shown) or "none"


def _package_of(path: Path) -> tuple[Path, str | None]:
    """The folder that has to be on the path, and the dotted name of a file that belongs to a package."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts[-1] == "__init__":
        parts.pop()
    return folder, ".".join(parts) if folder != path.parent else None


def _in_package(path: Path, root: Path, dotted: str) -> ModuleType:
    _on_path(root)
    module = _imported(dotted, str(path))
    if Path(module.__file__ or "").resolve() != path:
        raise UsageError(
            f"{path} is {dotted} in its package, but another {dotted} comes first: {module.__file__}. "
            "Uninstall that one, or rename the package."
        )
    return module


def _alone(path: Path, shown: str) -> ModuleType:
    # A name of its own: `test.py` or `jax.py` of the user must not hide, or be hidden by, a real module.
    name = f"_funcbp_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{shown}: this is no Python file.")
    _on_path(path.parent)
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _failed(shown, error) from error
    return module


def _on_path(folder: Path) -> None:
    # As `python file.py` does it, so that the file finds its neighbors; last, so that it hides nothing.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _imported(dotted: str, shown: str) -> ModuleType:
    _on_path(Path.cwd())
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name is not None and (dotted == error.name or dotted.startswith(f"{error.name}.")):
            raise UsageError(f"{shown}: there is neither a file nor a module of that name.") from error
        raise _failed(shown, error) from error
    except Exception as error:
        raise _failed(shown, error) from error


def _failed(shown: str, error: BaseException) -> UsageError:
    if isinstance(error, KeyboardInterrupt):
        raise error
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if not _of_import(f.filename)]
    lines = traceback.format_list(theirs) + traceback.format_exception_only(error)
    return UsageError(f"{shown} cannot be imported:\n{''.join(lines).rstrip()}")


def _of_import(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or "importlib" in filename


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{place} has no {name!r}; {_offer(value, part)}.")
        value = getattr(value, part)
    if not callable(value) and not isinstance(value, tuple | list):
        raise UsageError(f"{place}::{name} is no function but {type(value).__name__} {value!r:.60}.")
    return value


def _offer(owner: Any, wanted: str) -> str:
    own = getattr(owner, "__name__", None)
    names = [
        name
        for name, value in vars(owner).items()
        if not name.startswith("__")
        and callable(value)
        and (not isinstance(owner, ModuleType) or getattr(value, "__module__", own) == own)
    ]
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {close[0]!r}? There" if close else "there"
    return f"{hint} {'is' if len(names) == 1 else 'are'} {_listed(sorted(names))}"
