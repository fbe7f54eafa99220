"""Which variant of each network answers: what the operator asked for, against what the manifest and the machine hold.

A precision is a name for the model as a whole. Where only one of the two networks has a variant of that name, because
the other's lost too much accuracy, the other runs as fp32; the answer says which ran, network by network.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.imaging.errors import ModelError
from app.inference.manifest import AUTO, FP32, ModelManifest, NetworkFile, NetworkVariant
from app.inference.network import SessionOptions

ROLES = ("detector", "characteriser")


@dataclass(frozen=True)
class Machine:
    """What decides which variants can run here."""

    has_gpu: bool
    has_openvino: bool


def choose_precision(
    manifest: ModelManifest, precision: str, session: SessionOptions, machine: Machine
) -> dict[str, str]:
    """The name of the variant of each network.

    Parameters
    ----------
    manifest
        The model.
    precision
        ``fp32``, a variant's name, or ``auto``: of each network the quickest variant that was measured to be faster
        than fp32 and can run here.
    session
        Device, and whether a GPU is required.
    machine
        What is here.

    Raises
    ------
    ModelError
        ``precision_unknown`` when no network has a variant of that name; ``precision_unsuited`` when it is one for the
        CPU and a GPU is asked for; ``runtime_missing`` when it needs OpenVINO. Each names the precisions there are.
    """
    entries = manifest.networks
    if precision == AUTO:
        on_gpu = session.require_gpu or (session.device != "cpu" and machine.has_gpu)
        return {role: _quickest(entry, machine, on_gpu=on_gpu) for role, entry in entries.items()}
    variants = [entry.variants[precision] for entry in entries.values() if precision in entry.variants]
    if precision != FP32 and not variants:
        raise _refused(manifest, precision, "is not among them", "precision_unknown")
    for variant in variants:
        _refuse_unfit(manifest, precision, variant, session, machine)
    return {role: precision if precision in entry.variants else FP32 for role, entry in entries.items()}


def precisions_of(manifest: ModelManifest) -> list[str]:
    """Names that an operator can choose, fp32 first."""
    named = {name for entry in manifest.networks.values() for name in entry.variants}
    return [FP32, *sorted(named)]


def _quickest(entry: NetworkFile, machine: Machine, *, on_gpu: bool) -> str:
    """The variant of least seconds below fp32's that can run here, else fp32."""
    ratios = {FP32: 1.0}
    for name, variant in entry.variants.items():
        fits = (variant.device == "gpu") == on_gpu and (variant.runtime != "openvino" or machine.has_openvino)
        if fits and variant.seconds_ratio is not None:
            ratios[name] = variant.seconds_ratio
    return min(ratios, key=lambda name: ratios[name])


def _refuse_unfit(
    manifest: ModelManifest, precision: str, variant: NetworkVariant, session: SessionOptions, machine: Machine
) -> None:
    if variant.device == "cpu" and (session.require_gpu or session.device in {"cuda", "tensorrt"}):
        raise _refused(manifest, precision, "runs on the CPU, and a GPU is asked for", "precision_unsuited")
    if variant.runtime == "openvino" and not machine.has_openvino:
        raise _refused(
            manifest, precision, "runs in OpenVINO, which is not installed: pip install openvino", "runtime_missing"
        )


def _refused(manifest: ModelManifest, precision: str, why: str, code: str) -> ModelError:
    available = precisions_of(manifest)
    return ModelError(
        f"{manifest.name} {manifest.version} can run as {', '.join(available)}; {precision} {why}. Choose another "
        "precision (LUNGNODULE_PRECISION), or auto.",
        code=code,
        values={"precision": precision, "available": available},
    )
