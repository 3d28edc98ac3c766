#!/usr/bin/env bash
# Makes the environment if it is missing, then runs the linter, the formatter, the type checker and the tests.
#   ./test.sh                   without the tests marked as slow
#   ./test.sh --all             with them, as continuous integration does
#   ./test.sh tests/rendering   other arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

selection=(-m "not slow")
if [ "${1:-}" = --all ]; then
    selection=()
    shift
fi

# Runs a tool of the environment and notes its name if it fails
failed=()
check() {
    echo "== $*"
    ".venv/bin/$1" "${@:2}" || failed+=("$1")
}

bash scripts/setup_environment.sh
check ruff check .
check ruff format --check .

# The type checker takes a core and about as long as the fast tests, so it runs beside them
types=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$types"' EXIT
.venv/bin/pyright >"$types" 2>&1 &
check pytest -q "${selection[@]}" "$@"
echo "== pyright"
wait $! || failed+=(pyright)
cat "$types"

if [ ${#failed[@]} -gt 0 ]; then
    printf -v list '%s, ' "${failed[@]}"
    echo "FAILED: ${list%, } (after $SECONDS s)"
    exit 1
fi
echo "All checks passed in $SECONDS s"
