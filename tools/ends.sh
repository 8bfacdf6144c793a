#!/usr/bin/env bash
# Try both ends of every range that pyproject.toml declares: the lowest and the highest versions, each in an environment
# of its own, thrown away afterwards. Runs the library's tests there.   tools/ends.sh [lowest|highest]
set -euo pipefail
cd "$(dirname "$0")/.."
uv() { .venv/bin/python -m uv "$@"; }

one() {
  local end=$1 strategy=$2 place
  place=$(mktemp -d "${TMPDIR:-/tmp}/pneumolib-$end.XXXXXX")
  # shellcheck disable=SC2064  # the folder of now is meant
  trap "rm -rf '$place'" EXIT
  uv venv --quiet --python .venv/bin/python "$place"
  uv pip install --quiet --python "$place/bin/python" --resolution "$strategy" --editable ".[dev]"
  echo "== $end =="
  uv pip list --python "$place/bin/python" 2>/dev/null |
    grep -iE '^(keras|tensorflow|numpy|pandas|scikit-learn|scipy|pillow|matplotlib|onnxruntime|onnx|pytest) '
  uv pip check --python "$place/bin/python"
  "$place/bin/python" -m pytest --quiet -p no:cacheprovider "${@:3}"
  rm -rf "$place"
}

case ${1:-both} in
  # An old package among new ones calls what those have deprecated; that is none of ours.
  lowest) one lowest lowest-direct -W ignore::DeprecationWarning -W ignore::FutureWarning ;;
  highest) one highest highest ;;
  both) "$0" lowest && "$0" highest ;;
  *) echo "tools/ends.sh [lowest|highest]" >&2; exit 2 ;;
esac
