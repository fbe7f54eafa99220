#!/bin/sh
# Installs torch, CPU build unless told otherwise: install_torch.sh PYTHON [cpu|cuda]. See requirements/README.md.
set -eu
python=$1
flavour=${2:-cpu}
version=2.13.0

if [ "$flavour" = cuda ]; then
    exec "$python" -m pip install --quiet "torch==$version"
fi
if [ "$(uname -s)" = Darwin ]; then # macOS wheels carry no CUDA and no local version
    exec "$python" -m pip install --quiet --no-deps "torch==$version"
fi
# First where this machine's pip is configured to look (a mirror, PIP_FIND_LINKS), then PyTorch's own CPU index.
"$python" -m pip install --quiet --no-deps "torch==$version+cpu" 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps "torch==$version+cpu" --index-url https://download.pytorch.org/whl/cpu
