"""OpenTelemetry spans, where a collector is named: one for each request, job and stage.

A span holds route templates, states, codes, counts and ids of the service's own: never a path, header, address or
message, since those may hold what somebody typed or what a file says. So the spans are made here, not by
instrumentation of frameworks, and exceptions are told by their type or code.

Without a collector nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from app.imaging.errors import LungNoduleError, OptionError
from app.inference.findings import Progress

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, Tracer

Files = TypeVar("Files")
Model = TypeVar("Model")
Options = TypeVar("Options")
Answer = TypeVar("Answer")
Tell = Callable[[Progress], None]
Analysis = Callable[[Files, Model, Options, Tell], Answer]
Attributes = Mapping[str, str | int | float]

_EXPORT_TIMEOUT_S = 5
_PARENT = "traceparent"


class TracingUnavailable(OptionError):
    """Spans are asked for, but what sends them is not installed."""

    default_code = "tracing_unavailable"


@dataclass(frozen=True)
class RequestSpan:
    """The span of one request, named once its route is known."""

    trace_id: str | None
    """Hexadecimal; None without tracing."""
    _span: Span | None = None

    def describe(self, name: str, attributes: Attributes) -> None:
        """Name the span and say how the request ended."""
        if self._span is not None:
            self._span.update_name(name)
            self._span.set_attributes(attributes)


@dataclass(frozen=True)
class Tracing:
    """Makes spans; without a provider it does nothing."""

    provider: TracerProvider | None = None

    def close(self) -> None:
        """Send what has ended; a collector that does not answer is given up after some seconds."""
        if self.provider is not None:
            self.provider.shutdown()

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """The span of a request, as a child of the ``traceparent`` that the client sent."""
        if self.provider is None:
            yield RequestSpan(None)
            return
        from opentelemetry.trace import SpanKind, format_trace_id  # noqa: PLC0415 - an extra

        with self._tracer().start_as_current_span(
            "request", context=_context(headers.get(_PARENT)), kind=SpanKind.SERVER, **_SILENT
        ) as span:
            yield RequestSpan(format_trace_id(span.get_span_context().trace_id), span)

    def traceparent(self) -> str | None:
        """The current span as W3C Trace Context writes it, to be kept with a job; None where there is none."""
        if self.provider is None:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get(_PARENT)

    @contextmanager
    def job(self, job_id: str, attempt: int, origin: Callable[[], str | None]) -> Iterator[None]:
        """The span of one attempt: a trace of its own, since a job may wait for hours, linked to the request.

        Parameters
        ----------
        origin
            Gives the ``traceparent`` that was kept with the job; not called without tracing.
        """
        if self.provider is None:
            yield
            return
        from opentelemetry.context import Context  # noqa: PLC0415 - an extra
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        with self._tracer().start_as_current_span(
            "job", context=Context(), kind=SpanKind.CONSUMER, links=_links(origin()), **_SILENT,
            attributes={"lungnodule.job_id": job_id, "lungnodule.attempt": attempt},
        ):  # fmt: skip
            yield

    def traced(self, analyse: Analysis[Files, Model, Options, Answer]) -> Analysis[Files, Model, Options, Answer]:
        """The same analysis with a span for each stage, below the span of whoever calls it."""
        if self.provider is None:
            return analyse

        def run(files: Files, model: Model, options: Options, tell: Tell) -> Answer:
            with _stages(self._tracer()) as entered:

                def tell_both(progress: Progress) -> None:
                    entered(progress.stage)
                    tell(progress)

                return analyse(files, model, options, tell_both)

        return run

    def _tracer(self) -> Tracer:
        assert self.provider is not None  # noqa: S101 - every caller has looked
        return self.provider.get_tracer("lungnodule", version("lungnodule"))


def open_tracing(endpoint: str | None) -> Tracing:
    """Tracing to a collector; without one, none.

    Parameters
    ----------
    endpoint
        Base URL of a collector that takes OTLP over HTTP; ``/v1/traces`` is added. Headers, sampling and resource
        attributes are those of OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_TRACES_SAMPLER``,
        ``OTEL_RESOURCE_ATTRIBUTES``).

    Raises
    ------
    TracingUnavailable
        The extra ``otel`` is not installed.
    """
    if endpoint is None:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise TracingUnavailable(
            "LUNGNODULE_OTLP_ENDPOINT is set and OpenTelemetry is not installed: pip install 'lungnodule[otel]'."
        ) from None
    resource = Resource.create({"service.name": "lungnodule", "service.version": version("lungnodule")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


_SILENT: Mapping[str, Any] = {"record_exception": False, "set_status_on_exception": False}
"""The text of an exception may quote the file."""


@contextmanager
def _stages(tracer: Tracer) -> Iterator[Callable[[str], None]]:
    """Spans one after the other; gives what is told that a stage has been entered."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra

    current: list[tuple[str, Span]] = []

    def enter(stage: str) -> None:
        if current and current[0][0] == stage:
            return
        if current:
            current.pop()[1].end()
        current.append((stage, tracer.start_span(f"stage {stage}", attributes={"lungnodule.stage": stage})))

    try:
        yield enter
    except BaseException as error:
        for _, span in current:
            span.set_attribute("error.type", error.code if isinstance(error, LungNoduleError) else type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        for _, span in current:
            span.end()


def _context(traceparent: str | None) -> Any:  # noqa: ANN401 - a Context of an extra
    """Of a remote parent. Not its ``tracestate``: that is free text of the client's."""
    from opentelemetry.context import Context  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({_PARENT: traceparent or ""}, Context())


def _links(traceparent: str | None) -> Sequence[Link]:
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415 - an extra

    origin = get_current_span(_context(traceparent)).get_span_context()
    return [Link(origin)] if origin.is_valid else []
