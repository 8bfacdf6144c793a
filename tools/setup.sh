#!/bin/sh
# Make .venv and install the project into it, editable: tools/setup.sh run|dev
#   run: what the series needs.   dev: that, and what tests, types and format checks need.
# The interpreter is $PYTHON, or else the first of the usual names that is Python 3.11, 3.12 or 3.13.
set -eu
level=$1
cd "$(dirname "$0")/.."
case $level in run) extras=train,notebooks,serve,dicom ;; dev) extras=dev ;; *) echo "tools/setup.sh run|dev" >&2; exit 2 ;; esac

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || fail "PYTHON must name a Python 3.11, 3.12 or 3.13. Received: $PYTHON"
  python=$PYTHON
else
  python=
  for name in python3 python python3.12 python3.13 python3.11; do
    if fits "$name"; then python=$name && break; fi
  done
  [ -n "$python" ] || fail "pneumolib needs Python 3.11, 3.12 or 3.13, and none was found." \
    "Install one, or name it: make run PYTHON=/path/to/python3.12"
fi

# An environment of another Python, or one whose Python is gone, is made anew.
wanted=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
found=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ -z "$found" ] || { [ -n "${PYTHON:-}" ] && [ "$found" != "$wanted" ]; }; then
  rm -rf .venv
  "$python" -m venv .venv || fail "Python could not make an environment in .venv." \
    "On Debian and Ubuntu it lacks a package: apt install python3-venv"
fi

echo "Setting up .venv with Python ${found:-$wanted} (once; about 3 GB with TensorFlow) ..."
log=.venv/setup.log
# uv installs several times faster than pip; where it cannot be had or does not get through, pip does the same.
export UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=true
if .venv/bin/python -m pip install --quiet --disable-pip-version-check uv >"$log" 2>&1 &&
  .venv/bin/python -m uv pip install --python .venv/bin/python --quiet --compile-bytecode \
    --editable ".[$extras]" >>"$log" 2>&1; then
  :
elif .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" >>"$log" 2>&1; then
  :
else
  tail -n 15 "$log" >&2
  fail "The packages could not be installed; all that was said is in $log." \
    "Is PyPI reachable? A mirror or a proxy is set in pip's own configuration."
fi
[ "$level" = dev ] && touch .venv/.run
touch ".venv/.$level"
