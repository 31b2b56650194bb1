"""Check an installed funcbp wheel: contents, where it is imported from, its command, the README's examples.

Run it with the Python of the environment that holds the wheel: `python -I check_wheel.py README.md`.
"""

import argparse
import doctest
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

PYTHON_BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def check_installation() -> str:
    import funcbp

    assert funcbp.__file__ is not None, "funcbp is a namespace package: its __init__.py is missing"
    package = Path(funcbp.__file__).resolve().parent
    site_packages = Path(sysconfig.get_path("purelib")).resolve()
    assert sys.prefix != sys.base_prefix, "run this in a virtual environment"
    assert package.parent == site_packages, f"funcbp was imported from {package}, not from {site_packages}"
    assert (package / "py.typed").is_file(), "py.typed is missing from the wheel"

    distribution = importlib.metadata.distribution("funcbp")
    top_level = {file.parts[0] for file in distribution.files or ()}
    # pip adds the bytecode of the plugin, and the script, which lies outside of site-packages.
    expected = {"funcbp", "_funcbp_pytest.py", f"funcbp-{distribution.version}.dist-info"}
    assert expected <= top_level <= expected | {"__pycache__", ".."}, (
        f"the wheel installs {sorted(top_level)}, expected {sorted(expected)}"
    )
    entries = {(entry.group, entry.name): entry.value for entry in distribution.entry_points}
    assert entries == {
        ("console_scripts", "funcbp"): "funcbp.cli:main",
        ("pytest11", "funcbp"): "_funcbp_pytest",
    }
    return distribution.version


def check_command() -> None:
    """Without the extra `cli` the command says what to install; with it, it shows the catalogue."""
    command = Path(sysconfig.get_path("scripts")) / "funcbp"
    done = subprocess.run([command, "rules", "relu"], capture_output=True, text=True, check=False)
    if all(importlib.util.find_spec(name) for name in ("rich", "tyro")):
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("relu("), done.stdout
    else:
        assert done.returncode == 2, done.stderr
        assert 'pip install "funcbp[cli]"' in done.stderr, done.stderr


def run_examples(readme: Path) -> int:
    """Execute the ```python blocks in order, in one namespace, and return how many there were."""
    text = readme.read_text(encoding="utf-8")
    # Registered in sys.modules because dataclasses and pickle look a class's module up there.
    module = types.ModuleType("readme_examples")
    sys.modules[module.__name__] = module
    count = 0
    for match in PYTHON_BLOCK.finditer(text):
        source = match.group(1)
        line = text.count("\n", 0, match.start(1))
        if source.lstrip().startswith(">>>"):
            example = doctest.DocTestParser().get_doctest(
                source, module.__dict__, f"{readme.name}:{line + 1}", str(readme), line
            )
            # get_doctest copied the namespace, but later blocks build on earlier ones.
            example.globs = module.__dict__
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            failures = doctest.DocTestRunner(optionflags=flags).run(example, clear_globs=False).failed
            assert not failures, f"{failures} failures in the example at {readme.name}:{line + 1}"
        else:
            # The newlines make tracebacks point at the README's own lines.
            exec(compile("\n" * line + source, str(readme), "exec"), module.__dict__)
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readme", type=Path)
    arguments = parser.parse_args()
    version = check_installation()
    check_command()
    count = run_examples(arguments.readme)
    assert count, f"{arguments.readme.name} has no python example"
    print(f"funcbp {version}: wheel contents and command ok, {count} README examples ran")


if __name__ == "__main__":
    main()
