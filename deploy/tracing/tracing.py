"""Which requests a server traces, and where it sends their spans."""

from __future__ import annotations

import os
from dataclasses import dataclass

from model_repository.trace_collector import SERVICE_NAME, Collector

DEFAULT_RATE = 100
SERVER_NAME = "astmfr-server"
# A span that finds the queue full is lost, with a line in the log, and server 24.09 died of it (upstream #7795). A
# request has 8 to 12 spans of about 1 KiB: 10 s of 150 requests a second wait for a collector that does not answer.
QUEUE_SPANS = 16_384
BATCH_SPANS = 1_024  # of one export
DELAY_MS = 1_000  # between exports: a trace is to be seen soon


@dataclass(frozen=True)
class Tracing:
    """What a server traces; nothing stated is nothing.

    Attributes:
        collector: where the spans go; None traces nothing.
        rate: one in so many of the requests that no client traces; 0 for none of them. Those that a client traces are
            all traced.
    """

    collector: Collector | None = None
    rate: int = DEFAULT_RATE

    def server_options(self) -> list[str]:
        """Options of tritonserver; all of its versions that this project knows have them."""
        if self.collector is None:
            return []
        exported = {
            "url": self.collector.url,
            "resource": f"service.name={os.environ.get(SERVICE_NAME) or SERVER_NAME}",
            "bsp_max_queue_size": QUEUE_SPANS,
            "bsp_max_export_batch_size": BATCH_SPANS,
            "bsp_schedule_delay": DELAY_MS,
        }
        traced = {"mode": "opentelemetry", "level": "TIMESTAMPS", "rate": self.rate, "count": -1}
        return [
            *(f"--trace-config={name}={value}" for name, value in traced.items()),
            *(f"--trace-config=opentelemetry,{name}={value}" for name, value in exported.items()),
        ]

    def told(self) -> list[str]:
        """What people should know of it, and whether the collector is there now."""
        if self.collector is None:
            return []
        others = f", and of one in {self.rate:,} others" if self.rate else ""
        told = [f"spans of each request that a client traces{others} go to {self.collector.url}"]
        if not self.collector.listens():
            told.append(f"nothing listens at {self.collector.address}; spans are lost until a collector does")
        return told


OFF = Tracing()
