#!/bin/sh
# Makes .venv with swarmkit and its test tools in it; does nothing while pyproject.toml is unchanged.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.pyproject.sum
sum=$(cksum <pyproject.toml)
if [ -x .venv/bin/swarmkit ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
  exit 0
fi

fail() {
  echo "error: $1" >&2
  echo "  $2" >&2
  exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is $("$python" -V 2>&1); swarmkit needs Python 3.11 or newer" "set PYTHON=/path/to/python3.11"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  # Debian and Ubuntu keep them in a package of their own.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
  else
    fail "$python cannot make virtual environments" "install it, on Debian and Ubuntu: apt-get install python3-venv"
  fi
fi
echo "making the virtual environment .venv"
[ -x .venv/bin/pip ] || "$python" -m venv .venv
.venv/bin/pip install -qq --disable-pip-version-check -e '.[dev]'
printf '%s\n' "$sum" >"$stamp"
