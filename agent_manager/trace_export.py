"""Export of traces, as the standard environment variables of OpenTelemetry say; nothing is imported without them.

``OTEL_TRACES_EXPORTER`` names the exporters; without it, ``OTEL_EXPORTER_OTLP_ENDPOINT`` selects OTLP. All other
variables, such as the sampler's and the resource's, are read by OpenTelemetry itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from eventstore import __version__
from eventstore.errors import SettingsError, printable

_GROUP = "opentelemetry_traces_exporter"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}

_log = logging.getLogger(__name__)


def exporters() -> list[str]:
    """Return the names of the exporters that the environment selects, as packages of OpenTelemetry register them."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = "otlp" if any(os.environ.get(name) for name in _ENDPOINTS) else "none"
    wanted = [each.strip() for each in (os.environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    return [_OTLP.get(protocol, protocol) if each == "otlp" else each for each in wanted if each not in ("", "none")]


@contextmanager
def exporting_traces() -> Iterator[None]:
    """Export the traces of this process until the end of the block, if the environment selects exporters.

    Raises:
        SettingsError: no installed package has one of them.
    """
    provider = _provider(names) if (names := exporters()) else None
    try:
        yield
    finally:
        if provider is not None:
            provider.shutdown()


def _provider(names: Sequence[str]) -> Any:
    """Set and return a tracer provider with these exporters; None, and a warning, if the SDK is not installed."""
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import set_tracer_provider
    except ModuleNotFoundError:
        text = "traces are configured and cannot be exported: pip install 'flowagents-eventstore[otel]'"
        _log.warning(text, extra={"event": "tracing_unavailable"})
        return None
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "eventstore", "service.version": __version__}))
    provider = TracerProvider(resource=resource)
    for name in names:
        found = list(entry_points(group=_GROUP, name=name))
        if not found:
            known = ", ".join(sorted({each.name for each in entry_points(group=_GROUP)}))
            raise SettingsError(
                f"OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_PROTOCOL: no package has the exporter {printable(name, 60)}:"
                f" install it, or choose among {known}"
            )
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    set_tracer_provider(provider)
    return provider
