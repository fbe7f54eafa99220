"""A job's span, in whichever process it is made, leads back to the request that made the job."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.api.collector import Link, collecting
from tests.jobs.processes import Farm
from tests.jobs.stub import STAGES

StartFarm = Callable[..., Farm]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_job_in_a_worker_is_linked_to_the_request_that_made_it(start_farm: StartFarm) -> None:
    with collecting() as collector:
        farm = start_farm(STUB_STAGE_S="0.01", LUNGNODULE_OTLP_ENDPOINT=collector.url, LUNGNODULE_MAX_ATTEMPTS="1")
        service = farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
        worker = farm.worker()
        job_id = farm.submit("ok 4", traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        farm.assert_done_once(job_id, 4)
        farm.until_ended(farm.submit("error x"))
        for process in (service, worker):
            process.send_signal(signal.SIGTERM)
            assert farm.until_exit(process) == 0
        (request,) = [span for span in collector.named("POST /v1/jobs") if span.trace_id == TRACE]
        (job,) = [span for span in collector.named("job") if span.attributes["lungnodule.job_id"] == job_id]
        assert job.links == (Link(TRACE, request.span_id),)
        assert job.trace_id != TRACE
        below = [span.name for span in collector.spans() if span.parent_id == job.span_id]
        assert below == [f"stage {stage}" for stage in STAGES]
        assert len(collector.named("job")) == 2
        assert b"Doe" not in b"".join(collector.bodies)
