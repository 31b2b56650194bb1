"""Options of the suite: `--long` runs more of everything; compiled code is kept where asked for."""

import gc
import os
from collections.abc import Iterator

import hypothesis
import jax
import pytest

from funcbp._compat import HAS_FUSION_EMITTERS_OPTION

for profile, examples in (("default", 20), ("long", 500)):
    # Compilation makes a first example slow: no deadline. Failures repeat: derandomize.
    hypothesis.settings.register_profile(
        profile, deadline=None, derandomize=True, database=None, max_examples=examples, print_blob=True
    )


# Most of a test's time is XLA and LLVM optimizing what runs once.
_COMPILE_FAST = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if HAS_FUSION_EMITTERS_OPTION:
    _COMPILE_FAST.append("--xla_cpu_use_fusion_emitters=false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="more examples, shapes and dtypes; tests marked `long`"
    )


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "default")
    if not config.getoption("--long"):
        os.environ.setdefault("XLA_FLAGS", " ".join(_COMPILE_FAST))
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_collection_finish() -> None:
    # What JAX, its modules and thousands of collected tests consist of stays: no walk through it at every
    # full collection.
    gc.freeze()


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit types, which are off by default as they are for a user."""
    with jax.enable_x64(True):
        yield
