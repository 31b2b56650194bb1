# shellcheck shell=bash
# Sourced by scripts/run and scripts/test: goes to the repository root and makes .venv fit the checkout.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Without bytecode files every `import jax` compiles its sources again, which takes seconds.
unset PYTHONDONTWRITEBYTECODE
# An activated conda or virtual environment must not leak into this one.
unset PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

venv_python=.venv/bin/python
venv_stamp=.venv/funcbp-stamp
venv_unfinished=.venv/funcbp-unfinished
venv_extras=dev

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        if is_new_enough "$PYTHON"; then
            echo "$PYTHON"
            return
        fi
        echo "error: PYTHON=$PYTHON is not a Python 3.11 or newer" >&2
        return 1
    fi
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: funcbp needs Python 3.11 or newer; none found on PATH" >&2
    echo "       install one, or name it: PYTHON=/path/to/python3.12 $0" >&2
    return 1
}

# True when .venv is a working environment, and of the version of $PYTHON where that is set.
venv_works() {
    is_new_enough "$venv_python" || return 1
    # Killed in the middle of an install, pip can leave a package that looks installed and is not whole.
    [ ! -f "$venv_unfinished" ] || return 1
    "$venv_python" - "$PWD/.venv" <<'PY' >/dev/null 2>&1 || return 1
import os, sys
sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))
PY
    if [ -n "${PYTHON:-}" ]; then
        local show='import sys; print(sys.implementation.name, *sys.version_info[:3])'
        [ "$("$PYTHON" -c "$show")" = "$("$venv_python" -c "$show")" ] || return 1
    fi
}

venv_fingerprint() {
    "$venv_python" - "$venv_extras" <<'PY'
import hashlib, os, pathlib, platform, sys

digest = hashlib.sha256()
# The editable install records the checkout's path, so a moved checkout has to install again.
for part in (sys.version, platform.machine(), os.getcwd(), sys.argv[1]):
    digest.update(part.encode() + b"\0")
for name in ("pyproject.toml", "scripts/constraints.txt"):
    digest.update(pathlib.Path(name).read_bytes() + b"\0")
print(digest.hexdigest())
PY
}

ensure_venv() {
    local python fingerprint quiet=--quiet status=0
    if [ -n "${PYTHON:-}" ]; then
        find_python >/dev/null || return 1
    fi
    if ! venv_works; then
        python=$(find_python) || return 1
        echo "creating .venv with $("$python" --version)" >&2
        if ! "$python" -m venv --clear .venv; then
            echo "error: $python cannot create virtual environments (on Debian: install python3-venv)" >&2
            return 1
        fi
    fi
    fingerprint=$(venv_fingerprint) || return 1
    if [ -f "$venv_stamp" ] && [ "$(cat "$venv_stamp")" = "$fingerprint" ]; then
        return
    fi
    echo "installing funcbp[$venv_extras] into .venv" >&2
    rm -f "$venv_stamp"
    if ! "$venv_python" -m pip --version >/dev/null 2>&1; then
        "$venv_python" -m ensurepip --upgrade >/dev/null || return 1
    fi
    # Progress bars are for terminals only; a log gets errors and warnings.
    if [ -t 2 ]; then
        quiet=
    fi
    touch "$venv_unfinished"
    # shellcheck disable=SC2086
    "$venv_python" -m pip install $quiet --compile -c scripts/constraints.txt -e ".[$venv_extras]" >&2 || status=$?
    rm -f "$venv_unfinished"
    [ "$status" -eq 0 ] || return 1
    echo "$fingerprint" >"$venv_stamp.new" && mv "$venv_stamp.new" "$venv_stamp"
}

ensure_venv || exit 1
