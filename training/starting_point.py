"""Go on from a shipped model: ``python -m training.starting_point --config CONFIG --fold K --model FOLDER``.

Checkpoints are large and stay where they were made; the exported graphs hold the weights as well. This writes the
weights that `train` begins with, so that a later version need not begin at nothing. The model's split must
be the run's own and its fold the same: otherwise its weights have seen the patients that the fold holds out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from app.inference.manifest import load_manifest_and_sha256
from training.characteriser import Characteriser
from training.checkpoint import start_file
from training.config import TrainingConfig, load_config
from training.detector import Detector
from training.prepare import prepare
from training.splits import SplitError, read_split
from training.train import fold_folder

RECORD = "started-from.txt"
"""Beside the checkpoints: what export writes into the manifest about where the weights began."""


def start_from(config: TrainingConfig, fold: int, model: Path) -> None:
    """Write the weights that both stages of a fold begin with.

    Parameters
    ----------
    model
        Folder of the model store; its networks must have the configured sizes and have held out the same fold.

    Raises
    ------
    SplitError
        If the model was trained on another split.
    KeyError
        If a graph lacks a weight of the configured network.
    """
    theirs, ours = read_split(model / "split.json"), prepare(config).split
    if theirs.sha256 != ours.sha256:
        raise SplitError(f"{model} was trained on split {theirs.sha256[:12]}, this run has {ours.sha256[:12]}")
    manifest, sha256 = load_manifest_and_sha256(model)
    characteriser = Characteriser(config.characteriser.widths, len(config.characteriser.attributes))
    detector = Detector(config.detector.widths, config.detector.blocks)
    fill(characteriser, initialisers(model / manifest.second_stage.file), "network.")
    fill(detector, initialisers(model / manifest.detector.file), "detector.")
    folder = fold_folder(config, fold)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(characteriser.state_dict(), folder / start_file("characteriser"))
    torch.save(detector.state_dict(), folder / start_file("detector"))
    record = f"{manifest.name} {manifest.version} ({sha256[:12]})"
    (folder / RECORD).write_text(record + "\n", encoding="utf-8")


def initialisers(path: Path) -> dict[str, NDArray[Any]]:
    """Weights in an ONNX file by the name that torch gave them; the exporter keeps equal ones once, under one name."""
    graph = onnx.load(path).graph
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    weights = dict(stored)
    convolution_of = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "Conv"}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            stem, index = convolution_of[node.input[0]].removesuffix(".weight").rsplit(".", 1)
            for name, key in zip(node.input[1:5], ("weight", "bias", "running_mean", "running_var"), strict=True):
                weights[f"{stem}.{int(index) + 1}.{key}"] = stored[name]
    return weights


def fill(network: nn.Module, weights: dict[str, NDArray[Any]], prefix: str) -> None:
    """Load exported weights; the exporter may have folded a normalisation into the convolution before it.

    Raises
    ------
    KeyError
        If a weight is missing.
    """
    state = network.state_dict()
    for name, module in network.named_modules():
        for key in module.state_dict():
            if "." not in key and f"{prefix}{name}.{key}" in weights:
                state[f"{name}.{key}"] = torch.tensor(weights[f"{prefix}{name}.{key}"])
            elif "." not in key:
                state[f"{name}.{key}"] = _folded(module, key, name, weights, prefix)
    network.load_state_dict(state)


def _folded(module: nn.Module, key: str, name: str, weights: dict[str, NDArray[Any]], prefix: str) -> Tensor:
    """What of a normalisation is left once it lies in the convolution before it: its shift, and nothing else."""
    stem, _, index = name.rpartition(".")
    shift = f"{prefix}{stem}.{int(index) - 1}.weight_bias" if index.isdigit() else ""
    if not isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) or (
        shift not in weights and key != "num_batches_tracked"
    ):
        raise KeyError(f"the graph has no {prefix}{name}.{key}")
    whole = torch.ones(module.num_features)
    values = {
        "weight": whole,
        "running_mean": torch.zeros_like(whole),
        "running_var": whole - module.eps,
        "num_batches_tracked": torch.tensor(0),
    }
    return values[key] if key in values else torch.tensor(weights[shift])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.starting_point", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--model", type=Path, required=True)
    parsed = parser.parse_args()
    start_from(load_config(parsed.config), parsed.fold, parsed.model)
    sys.stdout.write(f"fold {parsed.fold} goes on from {parsed.model}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
