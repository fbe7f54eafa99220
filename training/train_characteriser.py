"""Train the second stage on axial crops; resumable, seeded, one process.

Every step sees three batches: candidate patches (one real slice each) teach nodule against non-nodule; nodule stacks
teach malignancy, the readers' characteristics and the mask; inserted nodules teach the mask where to end. A few
non-nodules have an empty mask, so that vessels are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.characteriser import Characteriser
from training.checkpoint import Checkpoint, averaged
from training.config import CharacteriserConfig, TrainingConfig
from training.crop_augmentation import random_views
from training.crops import CandidatePatches
from training.inserted_stacks import InsertedStacks
from training.nodule_stacks import READERS, NoduleStacks

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


def train_characteriser(config: TrainingConfig, data: CharacteriserData, folder: Path, *, seed: int) -> Characteriser:
    """Train to the configured number of steps, from the last checkpoint in ``folder`` if there is one.

    Returns
    -------
    Characteriser
        The exponential average of the weights, in evaluation mode.
    """
    settings = config.characteriser
    torch.manual_seed(seed)
    network = Characteriser(settings.widths, len(settings.attributes))
    average = averaged(network, settings.ema_decay)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, settings.steps, pct_start=0.15)
    state = Checkpoint(
        folder / "characteriser.ckpt", config.digest("characteriser", "crop", "data", "seed") + f":{seed}"
    )
    start = state.resume(network, average, optimiser, schedule)
    with SummaryWriter(str(folder / "log")) as log:
        for step in tqdm(
            range(start, settings.steps), initial=start, total=settings.steps, desc=folder.name, mininterval=20
        ):
            rng = np.random.default_rng((seed, step))
            torch.manual_seed(int(rng.integers(2**62)))  # dropout, so that a resumed run drops what a whole one would
            losses = _losses(network, config, data, rng)
            total = losses["nodule"] + losses["mask"] + 0.5 * losses["malignancy"] + 0.5 * losses["attributes"]
            optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
            if step % LOG_EVERY == 0:
                for name, value in losses.items():
                    log.add_scalar(f"characteriser/{name}", value.item(), step)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == settings.steps:
                state.save(step + 1, network, average, optimiser, schedule)
    return cast(Characteriser, average.module).eval()


def _losses(
    network: Characteriser, config: TrainingConfig, data: CharacteriserData, rng: np.random.Generator
) -> dict[str, Tensor]:
    settings, size = config.characteriser, config.crop.size_px
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = _draw_patches(data, config, rng)
    is_nodule = data.patches.is_nodule[rows]
    views, _ = random_views(torch.from_numpy(data.patches.crops[rows][:, None]), size, generator)
    chosen = rng.choice(data.stack_rows, settings.stacks_per_step)
    crops, masks = _draw_slices(data.stacks, chosen, settings.slices_per_stack, rng)
    stack_views, stack_masks = random_views(crops, size, generator, masks)
    inserted_crops, inserted_masks = _draw_inserted(data.inserted, settings.inserted_per_step, settings, rng)
    inserted_views, inserted_targets = random_views(inserted_crops, size, generator, inserted_masks)
    empty = views[torch.from_numpy(np.flatnonzero(~is_nodule)[:EMPTY_MASKS_PER_STEP])]
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        nodule = network.nodule_logit(views)
        out = network(stack_views)
        inserted_mask = network(inserted_views).mask
        empty_mask = network(empty).mask
    if stack_masks is None or inserted_targets is None:
        raise AssertionError("masks went in")
    smooth = torch.from_numpy(is_nodule.astype(np.float32)) * 0.98 + 0.01
    return {
        "nodule": binary_cross_entropy_with_logits(nodule.float(), smooth),
        "malignancy": binary_cross_entropy_with_logits(
            out.malignancy.float(), torch.from_numpy((data.stacks.rating("Malignancy")[chosen] - 1) / 4)
        ),
        "attributes": mse_loss(torch.sigmoid(out.attributes.float()), _attribute_targets(data.stacks, chosen, config)),
        "mask": _mask_loss(out.mask.float(), stack_masks)
        + 0.5 * _mask_loss(inserted_mask.float(), inserted_targets)
        + 0.5 * _emptiness(empty_mask.float()),
    }


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
    flat = logit.reshape(-1, 1, *logit.shape[2:])
    target = (share.reshape(flat.shape) >= 0.5).float()
    loss: Tensor = DiceCELoss(sigmoid=True, lambda_ce=2.0)(flat, target)
    return loss


def _emptiness(logit: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logit, torch.zeros_like(logit))
