"""Who is admitted, who waits, and what a hang-up frees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine

import pytest

from app.api.waiting_line import ClientHungUp, LineFull, WaitingLine


async def stays() -> dict[str, object]:
    """``receive`` of a client that waits for its answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_up() -> dict[str, object]:
    """``receive`` of a client that is gone."""
    return {"type": "http.disconnect"}


def run(scenario: Coroutine[None, None, None]) -> None:
    """Run to the end, which a line that is stuck does not reach."""
    asyncio.run(asyncio.wait_for(scenario, timeout=30))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_one_more_than_there_are_places_is_turned_away_with_a_time() -> None:
    line = WaitingLine(max_waiting=1)
    with line.place(), line.place():
        with pytest.raises(LineFull) as caught, line.place():
            pass
        assert caught.value.values["places"] == 2
        assert caught.value.values["retry_after_s"] >= 1
    with line.place():
        assert line.admitted == 1


def test_a_place_is_free_again_after_a_fault() -> None:
    line = WaitingLine(max_waiting=0)
    with pytest.raises(ZeroDivisionError), line.place():
        raise ZeroDivisionError
    assert line.admitted == 0


def test_work_runs_one_at_a_time_in_the_order_of_arrival() -> None:
    order: list[str] = []
    running, go = threading.Lock(), threading.Event()

    def work(name: str) -> Callable[[threading.Event], str]:
        def run(_abandoned: threading.Event) -> str:
            assert running.acquire(blocking=False), "two analyses at the same time"
            order.append(name)
            go.wait(10)
            running.release()
            return name

        return run

    async def scenario() -> None:
        line = WaitingLine(max_waiting=9)
        tasks = [asyncio.create_task(line.run(work(name), stays)) for name in "abcdef"]
        await until(lambda: order == ["a"] and line.waiting == 5)
        go.set()
        assert [result for result, _ in await asyncio.gather(*tasks)] == list("abcdef")
        assert line.waiting == 0

    run(scenario())
    assert order == list("abcdef")


def test_the_event_loop_turns_while_work_blocks() -> None:
    async def scenario() -> None:
        line, go = WaitingLine(max_waiting=0), threading.Event()
        task = asyncio.create_task(line.run(lambda _: go.wait(10), stays))
        await asyncio.sleep(0)
        go.set()
        assert (await task)[0] is True

    run(scenario())


def test_a_hang_up_in_the_line_gives_up_the_turn() -> None:
    ran: list[str] = []

    async def scenario() -> None:
        line, go, busy = WaitingLine(max_waiting=9), threading.Event(), threading.Event()

        def occupies(_abandoned: threading.Event) -> None:
            busy.set()
            go.wait(10)

        first = asyncio.create_task(line.run(occupies, stays))
        await until(busy.is_set)
        with pytest.raises(ClientHungUp):
            await line.run(lambda _: ran.append("gone"), hangs_up)
        assert line.waiting == 0
        last = asyncio.create_task(line.run(lambda _: ran.append("last"), stays))
        go.set()
        await asyncio.gather(first, last)

    run(scenario())
    assert ran == ["last"]


def test_a_hang_up_during_the_work_tells_it_and_waits_for_its_end() -> None:
    ended: list[bool] = []

    async def scenario() -> None:
        line, busy, gone = WaitingLine(max_waiting=0), threading.Event(), asyncio.Event()

        async def hangs_up_later() -> dict[str, object]:
            await gone.wait()
            return {"type": "http.disconnect"}

        def work(abandoned: threading.Event) -> None:
            busy.set()
            ended.append(abandoned.wait(10))

        task = asyncio.create_task(line.run(work, hangs_up_later))
        await until(busy.is_set)
        gone.set()
        with pytest.raises(ClientHungUp):
            await task
        assert (await line.run(lambda _: "free", stays))[0] == "free"

    run(scenario())
    assert ended == [True]


def test_a_fault_of_the_work_reaches_the_caller_and_frees_the_device() -> None:
    async def scenario() -> None:
        line = WaitingLine(max_waiting=0)

        def fails(_abandoned: threading.Event) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await line.run(fails, stays)
        assert (await line.run(lambda _: "free", stays))[0] == "free"

    run(scenario())
