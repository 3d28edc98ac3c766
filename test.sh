#!/usr/bin/env bash
# Makes the environment if it is missing, then runs every check: linter, formatter, types, tests.
# Arguments go to pytest, for example: ./test.sh tests/rendering
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

check() {
    echo "== $*"
    ".venv/bin/$1" "${@:2}" || failed+=("$1 ${2:-}")
}

bash scripts/setup_environment.sh
failed=()
check ruff check .
check ruff format --check .
check pyright
check pytest -q "$@"

if [ ${#failed[@]} -gt 0 ]; then
    printf -v list '%s, ' "${failed[@]}"
    echo "FAILED: ${list%, } (after ${SECONDS} s)"
    exit 1
fi
echo "All checks passed in ${SECONDS} s"
