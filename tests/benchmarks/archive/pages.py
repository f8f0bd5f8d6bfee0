"""The page about an archive's throughput and memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from client.benchmark.bars import Bar
from client.benchmark.machine import this_machine
from model_repository.image_size import ImageSize, size_text
from tests.benchmarks.archive.commands import WORKERS, Archived
from tests.benchmarks.archive.throughput import BATCH, Asked, Throughput

PAGE = Path("docs/measurements/archive.md")
HEAD = """# An archive

{date}, the embedded server, {machine}.
`make bench-all WHAT=archive` measures it and writes this page.

## Throughput

`edge`, {size} px, images of 160 x 160 px; {turns} turns of {images:,} images each. perf_analyzer sends pixels that it
has in memory, and decodes nothing: what the server can do. The others read and decode files and find the defects.
Processor time is that of a core, with all processes that belong to it, Ray's too.
"""
APART = """
### A server with cores of its own

The server has {server}, and those who ask have {clients} of their own: as if the server were another machine. This is
what the bar is for.
"""
SHARED = """
### Everything on the same cores

Server, clients and Ray share {server}. What decodes images takes the time from what judges them. The backbones have
as many threads as there are cores, as published: a thread that waits for another one, whose core somebody else has,
keeps its own core busy meanwhile.
"""
ONE_THREAD = """
### Everything on the same cores, a thread a backbone

The same with `deploy serve --threads 1`: nothing waits for another core.
"""
ABOUT = {"apart": APART, "shared": SHARED, "one-thread": ONE_THREAD}
TABLE = """
| asked by | images/s, each turn | median | of the server's | processor time an image, ms: client | server |
|---|---|---|---|---|---|
"""
MEMORY = """
Ray's start and end take {start_s:.0f} s more, whatever the number of images.

## Memory

A tiny category, 64 px. Of the command and all that it starts, Ray too: proportional set size, MiB. Most of it is
Ray's, which is there before the first image.

| images | peak | at the end | images/s |
|---|---|---|---|
"""


def page(
    measured: Sequence[Throughput], memory: Sequence[Archived], bars: Sequence[Bar], *, size: ImageSize
) -> str:
    """The whole page.

    Args:
        measured: in each situation.
        memory: runs of the command, from few images to many.
        bars: what is asked of them.
        size: of the images that the networks see.
    """
    runs = [run for each in measured for run in each.runs]
    text = HEAD.format(
        date=datetime.now(UTC).date(),
        machine=this_machine(),
        size=size_text(size),
        turns=len(measured[0].archive.rates),
        images=runs[0].images,
    )
    for each in measured:
        server, clients = (_cores(len(cores)) for cores in (each.situation.server, each.situation.clients))
        about = ABOUT[each.situation.name].format(server=server, clients=clients)
        text += about + TABLE + _rows(each)
    start_s = statistics.median(run.seconds - run.images / run.rate for run in runs)
    text += MEMORY.format(start_s=start_s)
    for run in memory:
        at_end = statistics.median(run.memory_mib[-5:])
        text += f"| {run.images:,} | {run.peak_mib:,.0f} | {at_end:,.0f} | {run.rate:.0f} |\n"
    return text + "\n## Bars\n\n" + "".join(f"- {bar}.\n" for bar in bars)


def _rows(measured: Throughput) -> str:
    names = {
        f"perf_analyzer, {measured.concurrency} in flight": measured.analyzer,
        "`predict`'s loop, one process": measured.loop,
        f"`archive`, {WORKERS} workers": measured.archive,
        f"the same with `--batch {BATCH}`": measured.batched,
    }
    return "".join(_row(name, asked, measured.analyzer.rate) for name, asked in names.items())


def _row(name: str, asked: Asked, analyzed: float) -> str:
    turns = ", ".join(f"{rate:.0f}" for rate in asked.rates)
    client_ms = f"{statistics.median(asked.client_ms):.1f}" if asked.client_ms else ""
    server_ms, share = statistics.median(asked.server_ms), asked.rate / analyzed
    return f"| {name} | {turns} | {asked.rate:.0f} | {share:.2f} | {client_ms} | {server_ms:.1f} |\n"


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"
