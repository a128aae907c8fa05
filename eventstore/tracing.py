"""Traces of OpenTelemetry, from the caller of an append to the projections that apply its events.

The application decides whether there are traces: this package imports nothing of OpenTelemetry, and uses its API only
if the application has imported it and has set a tracer provider.

An append made while a sampled span is current is a span too, and stores its W3C trace context in the metadata of its
events (``traceparent``), unless they name one themselves. It describes the request that brought an event, not what
happened, so it does not count when a repeated append is compared with what is stored. A worker's batch is a span of its
own, with a link to the append of each of its events: it has as many causes as there are events.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from eventstore.append import Append

CONVERSATION = "gen_ai.conversation.id"
"""The attribute of spans that names a conversation, in OpenTelemetry's semantic conventions."""
MAX_LINKS = 128
"""The links of one span; OpenTelemetry's default limit."""

_NO_SPAN = nullcontext()
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def tracing() -> Any:
    """Return the module ``opentelemetry.trace`` if the application has set a tracer provider, otherwise None."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return api


def current_trace() -> dict[str, str]:
    """Return the ids of the trace and the span that are current, for log records; nothing without a span."""
    api = tracing()
    context = None if api is None else api.get_current_span().get_span_context()
    if context is None or not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def set_conversation(conversation_id: UUID) -> None:
    """Name the conversation that the current span is about."""
    if (api := tracing()) is not None:
        api.get_current_span().set_attribute(CONVERSATION, str(conversation_id))


@contextmanager
def span(api: Any, name: str, kind: str, attributes: dict[str, Any], **options: Any) -> Iterator[Any]:
    """Make a span the current one until the end of the block. An error sets its type, not its text.

    Args:
        api: the result of :func:`tracing`.
        kind: the name of OpenTelemetry's kind of span.
        options: further arguments of OpenTelemetry's ``start_as_current_span``.
    """
    with api.get_tracer("eventstore").start_as_current_span(
        name, kind=api.SpanKind[kind], attributes=attributes, record_exception=False, set_status_on_exception=False,
        **options,
    ) as opened:  # fmt: skip
        try:
            yield opened
        except Exception as error:
            opened.set_attribute("error.type", type(error).__qualname__)
            opened.set_status(api.StatusCode.ERROR)
            raise


def append_span(appends: Sequence[Append]) -> AbstractContextManager[Any]:
    """Return a context manager that makes an append a span until the end of its block, if a span is current."""
    api = tracing()
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return _NO_SPAN
    attributes: dict[str, Any] = {"eventstore.events": sum(len(append.events) for append in appends)}
    if len(appends) == 1:
        attributes[CONVERSATION] = str(appends[0].conversation_id)
    return span(api, "eventstore append", "PRODUCER", attributes)


def traceparent() -> str | None:
    """Return the W3C trace context of the current span if it is sampled, otherwise None."""
    api = tracing()
    context = None if api is None else api.get_current_span().get_span_context()
    if context is None or not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def with_traceparent(metadata_json: bytes, context: str) -> bytes:
    """Return metadata, a JSON object, with a trace context."""
    rest = metadata_json[1:] if metadata_json == b"{}" else b"," + metadata_json[1:]
    return b'{"traceparent":"' + context.encode() + b'"' + rest


def record_batch(
    api: Any, projections: Sequence[str], sources: Iterable[Sequence[str]], began: int, ended: int
) -> None:
    """Record the span of a batch that a worker has applied, with a link to each append that it has events of.

    Args:
        api: the result of :func:`tracing`.
        sources: the trace contexts of the appends, each with its conversation; those that are not valid are skipped.
        began, ended: nanoseconds since the epoch.
    """
    links = []
    for text, conversation in sources:
        if parsed := _TRACEPARENT.fullmatch(text):
            trace_id, span_id, flags = (int(part, 16) for part in parsed.groups()[:3])
            context = api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=api.TraceFlags(flags))
            if context.is_valid:
                links.append(api.Link(context, {CONVERSATION: conversation}))
    conversations = {link.attributes[CONVERSATION] for link in links}
    attributes: dict[str, Any] = {"eventstore.projections": list(projections)}
    if len(conversations) == 1:
        attributes[CONVERSATION] = conversations.pop()
    if links:
        api.get_tracer("eventstore").start_span(
            "eventstore project", context=api.set_span_in_context(api.INVALID_SPAN), kind=api.SpanKind.CONSUMER,
            attributes=attributes, links=links, start_time=began,
        ).end(ended)  # fmt: skip
