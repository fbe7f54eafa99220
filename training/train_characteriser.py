"""Train the second stage on axial crops; `training.loop` does the steps.

Every step sees three batches: candidate patches (one real slice each) teach nodule against non-nodule; nodule stacks
teach malignancy, the readers' characteristics and the mask; inserted nodules teach the mask where to end. A few
non-nodules have an empty mask, so that vessels are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from training.characteriser import Characteriser
from training.checkpoint import Checkpoint, begin_with, start_file
from training.config import CharacteriserConfig, TrainingConfig
from training.crop_augmentation import random_views
from training.crops import CandidatePatches
from training.inserted_stacks import InsertedStacks
from training.loop import Schedule, Task, train_network
from training.nodule_stacks import READERS, NoduleStacks
from training.processes import Placement, placement
from training.torchvision_on_cpu import before_monai

EMPTY_MASKS_PER_STEP = 8
LOG_EVERY = 50
SAVE_EVERY = 500


@dataclass(frozen=True)
class CharacteriserData:
    """What one training run may see."""

    patches: CandidatePatches
    stacks: NoduleStacks
    inserted: InsertedStacks
    patch_rows: NDArray[np.intp]
    stack_rows: NDArray[np.intp]

    @classmethod
    def of_patients(
        cls, patches: CandidatePatches, stacks: NoduleStacks, inserted: InsertedStacks, patients: set[str]
    ) -> CharacteriserData:
        """Rows of these patients only; ``inserted`` must come from them already."""
        chosen = sorted(patients)
        return cls(
            patches,
            stacks,
            inserted,
            np.flatnonzero(np.isin(patches.patient_id, chosen)),
            np.flatnonzero(np.isin(stacks.patient_id, chosen)),
        )


@dataclass(frozen=True)
class CharacteriserBatch:
    """What one step sees.

    Parameters
    ----------
    dropout_seed
        So that a resumed run drops what a whole one would.
    views, is_nodule
        Candidates (n, s, rows, columns) in network units, and float32 (n,) 1 for a nodule.
    stack_views, stack_masks
        Nodules (m, s, rows, columns), and the share of readers covering each pixel.
    malignancy, attributes
        (m,) and (m, a) ratings scaled to 0..1.
    inserted_views, inserted_masks
        Slices with lung above and below the nodule, and its mask.
    empty
        Some of the non-nodules among ``views``: their mask is empty.
    """

    dropout_seed: int
    views: Tensor
    is_nodule: Tensor
    stack_views: Tensor
    stack_masks: Tensor
    malignancy: Tensor
    attributes: Tensor
    inserted_views: Tensor
    inserted_masks: Tensor
    empty: Tensor


def train_characteriser(
    config: TrainingConfig,
    data: CharacteriserData,
    folder: Path,
    *,
    seed: int,
    where: Placement | None = None,
    identity: str | None = None,
) -> Characteriser:
    """Train to the configured number of steps, from the last checkpoint in ``folder`` if there is one.

    Parameters
    ----------
    where
        This process; default: the only one.
    identity
        What a checkpoint must have been trained with and on; default: the configuration's.

    Returns
    -------
    Characteriser
        The exponential average of the weights, in evaluation mode.
    """
    settings = config.characteriser
    place = where or placement(config)
    torch.manual_seed(seed)
    network = Characteriser(settings.widths, len(settings.attributes))
    begin_with(network, folder / start_file("characteriser"))
    task: Task[Characteriser, CharacteriserBatch] = Task(
        name="characteriser",
        batch=lambda step: _batch(config, data, place.generator(seed, step)),
        losses=lambda network, batch: _losses(network, batch, place),
        total=lambda losses: (
            losses["nodule"] + losses["mask"] + 0.5 * losses["malignancy"] + 0.5 * losses["attributes"]
        ),
    )
    schedule = Schedule(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        ema_decay=settings.ema_decay,
        warm_up=0.15,
        clip_norm=5.0,
        log_every=LOG_EVERY,
        save_every=SAVE_EVERY,
    )
    identity = identity or config.digest("characteriser", "crop", "data", "seed")
    state = Checkpoint(folder / "characteriser.ckpt", f"{identity}:{seed}", place.processes)
    return train_network(network, task, schedule, state, place, workers=config.workers)


def _batch(config: TrainingConfig, data: CharacteriserData, rng: np.random.Generator) -> CharacteriserBatch:
    settings, size = config.characteriser, config.crop.size_px
    dropout_seed = int(rng.integers(2**62))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = _draw_patches(data, config, rng)
    is_nodule = data.patches.is_nodule[rows]
    views, _ = random_views(_with_slices(data.patches.crops[rows]), size, generator)
    chosen = rng.choice(data.stack_rows, settings.stacks_per_step)
    crops, masks = _draw_slices(data.stacks, chosen, settings.slices_per_stack, rng)
    stack_views, stack_masks = random_views(crops, size, generator, masks)
    inserted_crops, inserted_masks = _draw_inserted(data.inserted, settings.inserted_per_step, settings, rng)
    inserted_views, inserted_targets = random_views(inserted_crops, size, generator, inserted_masks)
    if stack_masks is None or inserted_targets is None:
        raise AssertionError("masks went in")
    return CharacteriserBatch(
        dropout_seed=dropout_seed,
        views=views,
        is_nodule=torch.from_numpy(is_nodule.astype(np.float32)),
        stack_views=stack_views,
        stack_masks=stack_masks,
        malignancy=torch.from_numpy((data.stacks.rating("Malignancy")[chosen] - 1) / 4),
        attributes=_attribute_targets(data.stacks, chosen, config),
        inserted_views=inserted_views,
        inserted_masks=inserted_targets,
        empty=views[torch.from_numpy(np.flatnonzero(~is_nodule)[:EMPTY_MASKS_PER_STEP])],
    )


def _losses(network: Characteriser, batch: CharacteriserBatch, where: Placement) -> dict[str, Tensor]:
    torch.manual_seed(batch.dropout_seed)
    with where.autocast():
        nodule = network.nodule_logit(batch.views)
        out = network(batch.stack_views)
        inserted_mask = network(batch.inserted_views).mask
        empty_mask = network(batch.empty).mask
    return {
        "nodule": binary_cross_entropy_with_logits(nodule.float(), batch.is_nodule * 0.98 + 0.01),
        "malignancy": binary_cross_entropy_with_logits(out.malignancy.float(), batch.malignancy),
        "attributes": mse_loss(torch.sigmoid(out.attributes.float()), batch.attributes),
        "mask": _mask_loss(out.mask.float(), batch.stack_masks)
        + 0.5 * _mask_loss(inserted_mask.float(), batch.inserted_masks)
        + 0.5 * _emptiness(empty_mask.float()),
    }


def _with_slices(crops: NDArray[np.uint8]) -> Tensor:
    """Candidates of one slice, (n, rows, columns), or of several, (n, s, rows, columns), as the latter."""
    return torch.from_numpy(crops if crops.ndim == 4 else crops[:, None])


def _draw_patches(data: CharacteriserData, config: TrainingConfig, rng: np.random.Generator) -> NDArray[np.intp]:
    """Nodules and non-nodules in the configured share; each annotated nodule is as likely as any other."""
    settings, patches = config.characteriser, data.patches
    keys = patches.nodule_key[data.patch_rows]
    nodules = rng.choice(np.unique(keys[keys >= 0]), settings.nodules_per_patch_batch)
    picked = [rng.choice(data.patch_rows[keys == key]) for key in nodules]
    others = settings.patches_per_step - settings.nodules_per_patch_batch
    return np.concatenate([np.asarray(picked), rng.choice(data.patch_rows[keys < 0], others, replace=False)])


def _draw_slices(
    stacks: NoduleStacks, chosen: NDArray[np.intp], slices: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A few slices through each nodule as the service takes them, (n, slices, wide, wide); masks by majority."""
    crops, masks = [], []
    for n in chosen:
        first, count, spacing = stacks.first_slice[n], int(stacks.slice_count[n]), float(stacks.slice_spacing_mm[n])
        middle = (count - 1) / 2
        if rng.random() < 0.5:
            middle = float(np.clip(middle + rng.normal(0, count / 5), 0, count - 1))
        else:
            middle = float(rng.uniform(0, count - 1))
        offsets = (np.arange(slices) - slices // 2) * 1.5 / spacing
        index = first + np.clip(np.floor(middle + offsets + 0.5), 0, count - 1).astype(int)
        crops.append(stacks.crops[index])
        # half of the readers who outlined the nodule at all
        share = stacks.reader_fraction[index].astype(np.float32) * READERS / float(stacks.rating("NumAnnotations")[n])
        masks.append(np.clip(share, 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(masks))


def _draw_inserted(
    stacks: InsertedStacks, items: int, settings: CharacteriserConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Slices anywhere from below to above inserted nodules, (items, slices, wide, wide), with their masks."""
    chosen = rng.integers(len(stacks.first_slice), size=items)
    middle = rng.integers(stacks.slice_count[chosen])
    steps = np.rint((np.arange(settings.slices_per_stack) - settings.slices_per_stack // 2) * 1.5).astype(int)
    inside = np.clip(middle[:, None] + steps, 0, stacks.slice_count[chosen][:, None] - 1)
    rows = stacks.first_slice[chosen][:, None] + inside
    return torch.from_numpy(stacks.crops[rows]), torch.from_numpy(stacks.mask[rows])


def _attribute_targets(stacks: NoduleStacks, chosen: NDArray[np.intp], config: TrainingConfig) -> Tensor:
    """Readers' ratings scaled to 0..1; calcification's 6 (absent) becomes 1."""
    columns = []
    for name in config.characteriser.attributes:
        top = 6.0 if name == "Calcification" else 5.0
        columns.append((stacks.rating(name)[chosen] - 1.0) / (top - 1.0))
    return torch.from_numpy(np.clip(np.stack(columns, axis=1), 0, 1).astype(np.float32))


def _mask_loss(logit: Tensor, share: Tensor) -> Tensor:
    """Dice and cross-entropy against the majority outline, each slice an item of its own."""
    before_monai()
    from monai.losses.dice import DiceCELoss  # noqa: PLC0415 - not before the line above

    flat = logit.reshape(-1, 1, *logit.shape[2:])
    target = (share.reshape(flat.shape) >= 0.5).float()
    loss: Tensor = DiceCELoss(sigmoid=True, lambda_ce=2.0)(flat, target)
    return loss


def _emptiness(logit: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logit, torch.zeros_like(logit))
