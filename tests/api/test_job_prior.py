"""The earlier scan beside the current one: the matrix takes a nodule to where it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.api.analysed import World, analysed_world, reading_phantom, refused, zipped_series

SHIFT_MM = np.array((12.0, -8.0, 15.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[World]:
    with analysed_world(tmp_path_factory.mktemp("prior"), tiny_model_store) as made:
        yield made


def test_a_point_is_taken_to_where_it_was(world: World, tmp_path: Path) -> None:
    grid = reading_phantom().volume.grid
    # The same patient elsewhere on the table: the nodules are the same in the array, and moved in the patient's frame.
    before = reading_phantom(origin_lps_mm=grid.origin_lps_mm + SHIFT_MM)
    now = reading_phantom()
    prior = world.job(zipped_series(before.volume, tmp_path / "before"))
    world.work()
    assert refused(world.get(prior, "prior")) == (404, "no_prior")
    job = world.job(zipped_series(now.volume, tmp_path / "now"), prior=prior)
    world.work()

    told = world.get(job, "prior")
    assert told.status_code == 200, told.text
    link = told.json()
    assert (link["job_id"], link["available"]) == (prior, True)
    matrix = np.array(link["current_to_prior_lps"])
    assert matrix.shape == (4, 4)
    for nodule, was in zip(now.nodules, before.nodules, strict=True):
        there = matrix @ (*nodule.center_lps_mm, 1.0)
        assert np.linalg.norm(there[:3] - was.center_lps_mm) < 3.0
    assert 0.0 <= link["residual_mm"] < 3.0
    comparison = world.get(job, "result").json()["comparison"]
    pairs = [(one["current"], one["prior"]) for one in link["matches"]]
    assert pairs == [(one["current_id"], one["prior_id"]) for one in comparison["matched"]]
    assert len(pairs) >= 2
    assert link["matches"][0]["growth"] == comparison["matched"][0]["growth"]

    world.client.delete(f"/v1/jobs/{prior}/data")
    assert world.get(job, "prior").json()["available"] is False


def test_there_is_none_of_a_job_that_is_not_there_or_not_done(world: World) -> None:
    assert refused(world.get("none", "prior")) == (404, "unknown_job")
    job = world.job(b"no scan")
    assert refused(world.get(job, "prior")) == (409, "job_not_finished")
    world.queue.tickets.clear()
