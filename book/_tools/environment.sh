#!/bin/sh
# Make .venv hold what a make target needs: `environment.sh book` to build the book, or
# `environment.sh test` for that and both frameworks, the notebooks and the tests.
#
# Stamps in .venv remember what was installed, from which lock, by which Python, in which folder, so
# a second call with nothing changed takes a moment. PYTHON=/path/to/python chooses.
set -eu
cd "$(dirname "$0")/../.."

case "${1:-}" in
    book) stages="book" ;;
    pdf) stages="book pdf" ;;
    test) stages="book test torch tensorflow" ;;
    *) echo "usage: environment.sh book|pdf|test" >&2; exit 2 ;;
esac

is_supported() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1
}

version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if is_supported "$PYTHON"; then echo "$PYTHON"; return; fi
        found=$(version_of "$PYTHON" || echo "not one that runs")
        echo "The course needs Python 3.11, 3.12 or 3.13 with venv, and PYTHON=$PYTHON is $found." >&2
        return 1
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if is_supported "$candidate"; then echo "$candidate"; return; fi
    done
    found=$(version_of python3 || echo "none")
    echo "The course needs Python 3.11, 3.12 or 3.13 with venv; python3 here is $found:" \
        "name another with 'make ${1:-book} PYTHON=/path/to/python3.12'." >&2
    return 1
}

venv_python=.venv/bin/python

# A .venv whose Python is gone, or is not the one asked for, is made anew.
usable=yes
is_supported "$venv_python" || usable=no
if [ "$usable" = yes ] && [ -n "${PYTHON:-}" ]; then
    wanted=$(find_python)
    [ "$(version_of "$wanted")" = "$(version_of "$venv_python")" ] || usable=no
fi
if [ "$usable" = no ]; then
    python=$(find_python "$1")
    echo "==> Creating .venv with Python $(version_of "$python")"
    rm -rf .venv
    "$python" -m venv .venv
fi

state="$(cat requirements.lock pyproject.toml book/_tools/environment.sh | cksum)
$(version_of "$venv_python")
$(pwd)"
is_installed() { [ -f ".venv/installed-$1" ] && [ "$(cat ".venv/installed-$1")" = "$state" ]; }

pip_install() {
    "$venv_python" -m pip --disable-pip-version-check --quiet install \
        --constraint requirements.lock "$@"
}

for stage in $stages; do
    if is_installed "$stage"; then continue; fi
    echo "==> Installing what '$stage' needs, from requirements.lock (minutes the first time)"
    rm -f ".venv/installed-$stage"
    # The build backend comes from the lock too, so that nothing is resolved outside it.
    pip_install setuptools
    pip_install --no-build-isolation --editable ".[$stage]"
    printf '%s\n' "$state" > ".venv/installed-$stage"
done
