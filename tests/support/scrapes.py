"""Metrics as Prometheus reads them."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agent_manager.metrics import Metrics


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def sum(self, name: str, **labels: Any) -> float:
        """The sum of the samples that have this name and these labels; they may have further labels."""
        wanted = {label: str(value) for label, value in labels.items()}.items()
        return sum(sample.value for sample in self.samples if sample.name == name and wanted <= sample.labels.items())

    def by(self, label: str, name: str) -> dict[str, float]:
        """The samples of a name by the value of their only label."""
        return {sample.labels[label]: sample.value for sample in self.samples if sample.name == name}


async def scrape(metrics: Metrics) -> Scrape:
    """Read the metrics."""
    return Scrape(bytes((await metrics.response()).body).decode())


async def rejections(metrics: Metrics, reason: str) -> float:
    """The number of requests and connections that were rejected for a reason."""
    return (await scrape(metrics)).sum("eventstore_http_rejections_total", reason=reason)
