#!/bin/sh
# Installs torch and torchvision, CPU builds unless told otherwise: install_torch.sh PYTHON [cpu|cuda]. See
# requirements/README.md. torchvision is for MONAI's detection (python -m training import-monai), which takes two plain
# Python parts from it; training/torchvision_on_cpu.py says what becomes of the rest.
set -eu
python=$1
flavour=${2:-cpu}
version=2.13.0
vision=0.28.0

if [ "$flavour" = cuda ]; then
    exec "$python" -m pip install --quiet "torch==$version" "torchvision==$vision"
fi
if [ "$(uname -s)" = Darwin ]; then # macOS wheels carry no CUDA and no local version
    exec "$python" -m pip install --quiet --no-deps "torch==$version" "torchvision==$vision"
fi
# First where this machine's pip is configured to look (a mirror, PIP_FIND_LINKS), then PyTorch's own CPU index.
"$python" -m pip install --quiet --no-deps "torch==$version+cpu" 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps "torch==$version+cpu" --index-url https://download.pytorch.org/whl/cpu
# Without its dependencies: the plain wheel asks for CUDA libraries that nothing here calls.
"$python" -m pip install --quiet --no-deps "torchvision==$vision+cpu" 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps "torchvision==$vision"
