#!/bin/sh
# Removes what `make demo` and `make test` made: labs, images, the engine's process if we started it,
# virtual environments and caches. Debian packages stay installed.
set -eu
cd "$(dirname "$0")/.."
if [ -x .venv/bin/swarmkit ] && docker version >/dev/null 2>&1; then
  .venv/bin/swarmkit lab down --all --images
fi
scripts/ensure-engine.sh --stop
rm -rf .cache .venv benchmarks/.venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
find . -name __pycache__ -type d -prune -exec rm -rf {} +
