#!/usr/bin/env bash
# Makes .venv and installs requirements.txt into it, unless that has been done for this file already.
# Run from the repository root; test.sh and demo.sh call it. PYTHON names another interpreter.
set -euo pipefail

interpreter=${PYTHON:-python3}
installed=.venv/installed_requirements.txt

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # absent, or cut off while it was made
    if ! "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "error: $interpreter is not Python 3.10 or newer. Install one, or name it: PYTHON=python3.11 $0" >&2
        exit 1
    fi
    echo "Making .venv with $("$interpreter" --version)"
    if ! "$interpreter" -m venv .venv; then
        echo "error: no virtual environment could be made. On Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

if ! cmp --silent requirements.txt "$installed"; then
    echo "Installing requirements.txt into .venv (the first time, gigabytes that come with PyTorch)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$installed"
fi
