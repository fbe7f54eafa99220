"""`lungnodule serve`: the HTTP service in this process."""

from __future__ import annotations

import math
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from app.allocator import share_arenas
from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import one_process_per_port, settings_with

if TYPE_CHECKING:
    import uvicorn


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    root_path: Annotated[str | None, typer.Option(help="Path prefix that a reverse proxy strips.")] = None,
) -> None:
    """Start the REST service.

    Everything else is set by environment variables: docs/operations.md lists them. It also works on jobs, unless
    LUNGNODULE_WORKER_CONCURRENCY is 0. On SIGTERM it is not ready any more, then stops listening, finishes what it has
    accepted and hands back jobs that take longer.

    For example:

    - `lungnodule serve`

    - `lungnodule serve --host 0.0.0.0 --port 8080 --root-path /lungnodule`

    - `LUNGNODULE_REQUIRE_GPU=1 lungnodule serve`
    """
    with errors_in_one_line():
        one_process_per_port()
        share_arenas()
        import uvicorn

        from app.api.connection_guard import connection_limits, guarded_protocol
        from app.api.model_choice import Models, open_models
        from app.api.pacs_desk import checked_config
        from app.jobs.installation import open_activations
        from app.logs import configure_logs, tell_uncaught
        from app.main import create_app
        from app.metrics import Metrics

        # Process 1 of a container ignores SIGTERM without a handler. While it serves, uvicorn's takes over: it drains,
        # then calls this one, since to have ended as told is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.OK))
        draining = threading.Event()
        settings = settings_with(host=host, port=port, root_path=root_path)
        configure_logs(settings.log_level)
        tell_uncaught()
        # Before uvicorn starts: a model that cannot be used is then one line and an exit code, not a traceback.
        found = open_models(settings)
        with open_activations(settings) as activations:
            models = Models(found.registry, found.named, activations)
            models.load_first()
            pacs_config = checked_config(settings, models)
        if pacs_config is not None and pacs_config.dimse is not None:
            from app.pacs.listener import check_address

            check_address(pacs_config.dimse)
        metrics = Metrics()
        config = uvicorn.Config(
            create_app(settings, load=lambda _settings: found, work=True, draining=draining, metrics=metrics),
            host=settings.host,
            port=settings.port,
            root_path=settings.root_path,
            # h11: the one of uvicorn's parsers that bounds the size of headers.
            http=guarded_protocol(connection_limits(settings), metrics.count_refused_connection),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the app believes the proxies of the settings, and no other
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=math.ceil(settings.upload_timeout_s + settings.analysis_timeout_s),
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        try:
            draining_server(config, draining, settings.drain_notice_s).run()
        except SystemExit as stopped:
            if stopped.code == ExitCode.OK:
                raise
            # How uvicorn says that it could not listen.
            fail(ExitCode.SYSTEM, "cannot_listen", f"{settings.host} port {settings.port} cannot be listened on.")


def draining_server(config: uvicorn.Config, draining: threading.Event, notice_s: float) -> uvicorn.Server:
    """A server that on SIGTERM is first not ready, and only then stops listening: a balancer needs the time between."""
    import uvicorn

    class DrainingServer(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            told_before = draining.is_set()
            draining.set()
            if sig == signal.SIGTERM and not told_before and self.started:
                notice = threading.Timer(notice_s, super().handle_exit, (sig, frame))
                notice.daemon = True
                notice.start()
            else:
                super().handle_exit(sig, frame)

    return DrainingServer(config)
