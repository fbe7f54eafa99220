"""Where a run computes, in what precision, and what several processes share."""

import numpy as np
import pytest
import torch

from training.checkpoint import Checkpoint, ResumeError
from training.config import TrainingConfig
from training.loop import Schedule
from training.processes import Placement, ProcessError, placement
from training.train_detector import train_detector

from tests.training.test_insertion import bank, ellipsoid_background  # isort: skip
from tests.training.test_runs import tiny_config  # isort: skip

CPU = torch.device("cpu")


def test_one_process_draws_as_runs_have_always_drawn_and_others_draw_otherwise():
    plain = np.random.default_rng((7, 3)).random()
    assert Placement(CPU, None).generator(7, 3).random() == plain
    draws = [Placement(CPU, None, rank, 4).generator(7, 3).random() for rank in range(4)]
    assert draws[0] == plain
    assert len(set(draws)) == 4


@pytest.mark.parametrize(("processes", "steps", "factor"), [(1, 1001, 1.0), (2, 501, 2**0.5), (4, 251, 2.0)])
def test_processes_share_the_steps(processes, steps, factor):
    schedule = Schedule(1001, 1e-3, 0.0, 0.9, 0.1, 1.0, 10, 10).shared(Placement(CPU, None, 0, processes))
    assert schedule.steps == steps
    assert schedule.learning_rate == pytest.approx(1e-3 * factor)


@pytest.mark.parametrize(
    ("changes", "half"),
    [
        ({}, torch.bfloat16),
        ({"half": "float16"}, torch.float16),
        ({"half": "bfloat16"}, torch.bfloat16),
        ({"bfloat16": False}, None),
    ],
)
def test_precision_on_the_cpu(changes, half):
    assert placement(TrainingConfig(name="x", device="cpu", **changes)) == Placement(CPU, half)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_that_is_asked_for_and_not_there_is_refused():
    with pytest.raises(ProcessError, match="sees no GPU"):
        placement(TrainingConfig(name="x", device="cuda"))


def test_float16_trains_with_a_loss_scale_that_is_stored(tmp_path):
    config = tiny_config(tmp_path).model_copy(update={"device": "cpu", "bfloat16": True, "half": "float16"})
    network = train_detector(config, [ellipsoid_background()], bank(), tmp_path, seed=3)
    state = Checkpoint.read(tmp_path / "detector.ckpt")
    assert state["scaler"]["scale"] > 0
    assert state["finished"]
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_batches_made_by_workers_are_those_made_in_turn(tmp_path):
    config = tiny_config(tmp_path)
    plain, ahead = (
        train_detector(
            config.model_copy(update={"workers": workers}),
            [ellipsoid_background()],
            bank(),
            tmp_path / str(workers),
            seed=3,
        ).state_dict()
        for workers in (0, 2)
    )
    assert all(torch.equal(value, ahead[name]) for name, value in plain.items())


def test_a_run_of_several_processes_is_not_continued_by_one(tmp_path):
    config = tiny_config(tmp_path)
    train_detector(config, [ellipsoid_background()], bank(), tmp_path, seed=3)
    state = Checkpoint.read(tmp_path / "detector.ckpt")
    torch.save({**state, "processes": 2}, tmp_path / "detector.ckpt")
    with pytest.raises(ResumeError, match="nproc-per-node 2"):
        train_detector(config, [ellipsoid_background()], bank(), tmp_path, seed=3)


def test_a_checkpoint_of_another_configuration_is_put_aside(tmp_path):
    config = tiny_config(tmp_path)
    train_detector(config, [ellipsoid_background()], bank(), tmp_path, seed=3)
    kept = (tmp_path / "detector.ckpt").read_bytes()
    other = config.model_copy(update={"detector": config.detector.model_copy(update={"learning_rate": 1e-5})})
    train_detector(other, [ellipsoid_background()], bank(), tmp_path, seed=3)
    aside = list(tmp_path.glob("detector-*.ckpt"))
    assert [path.read_bytes() for path in aside] == [kept]
