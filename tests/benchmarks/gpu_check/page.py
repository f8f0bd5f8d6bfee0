"""docs/measurements/gpu-<card>.md from the results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.gpu_check.goals import (
    DATA_SHEET_TFLOPS,
    GFLOP_AN_IMAGE,
    Parts,
    best_chain,
    goals_of,
    share_of_peak,
)


def page_of(parts: Parts, *, date: str, device: str, tiny: bool) -> str:
    """The whole page as Markdown."""
    machine = parts.get("machine", {})
    blocks = [f"# GPU check: {machine.get('card', device)}", head(machine, date)]
    if tiny:
        blocks.append("**A try in tiny sizes: no figure below says anything about a GPU.**")
    blocks += [
        "## Goals", goals(parts),
        "Ensemble: the slower of bare chain and fusion, so an upper bound; no Triton with a GPU was run.",
        "## The bare pair", "`paper`, distance maps of teacher and student, from the card's memory and back to it;"
        " p50 and p99 with both copies to and from the host.", pairs(parts), limit(parts),
        "## Training", training(parts), TRAINING_NOTE, judged(parts),
        "## The fusion alone", fusion(parts),
        "## Tests with the marker `gpu`", gpu_tests(parts.get("gpu-tests", {})),
        "## The parts", part_table(parts),
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


WORDS = ("", "what limits it")  # columns that hold no figures
TRAINING_NOTE = (
    "Share: of what the matrix units reach in bf16; `train fit` and the loops are counted with the student's products "
    "forwards and backwards, the loops with the teacher's too. `train fit` is timed in a whole run, its validations "
    "counted in; the plain loop runs the teacher in each step, in float32 and the default layout; the good loop has "
    "autocast, channels_last, images on the card, and `torch.compile` unless this says otherwise."
)


def head(machine: Mapping[str, Any], date: str) -> str:
    """Date and machine in a paragraph."""
    names = ("gpus", "memory_gib", "driver", "cores", "torch", "cuda", "python")
    facts = [
        f"{name.replace('_gib', ', GiB')} {machine[name]}" for name in names if machine.get(name) is not None
    ]
    peak = machine.get("matrix_tflops")
    reached = f" A product of large bf16 matrices reached {peak:,.4g} TFLOP/s." if peak else ""
    busy = f" **{machine['in_use']}**" if machine.get("in_use") else ""
    return f"{date}, `make gpu-check`, one run: {'; '.join(facts)}.{reached}{busy}"


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table; figures right of the first column."""
    rule = ["---", *("---" if name in WORDS else "---:" for name in columns[1:])]
    rows = [list(columns), rule, *([str(cell) for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)


def figure(value: object) -> str:
    """A number to three or four digits; nothing where there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share of 1 as percent."""
    return "" if share is None else f"{100 * share:.1f} %"


def goals(parts: Parts) -> str:
    """A line a goal."""
    columns = ("`paper`, 256 px, goals on one H100", "measured", "goal", "", "what limits it")
    return table(columns, [goal.cells() for goal in goals_of(parts)])


def pairs(parts: Parts) -> str:
    """A line a way of running the pair."""
    lines = []
    for label, name in (("PyTorch", "pair"), ("the same, torch.compile", "pair-compiled")):
        part = parts.get(name, {})
        lines.append(pair_line(label, part, part.get("images_per_s", {})))
    runtimes = parts.get("runtimes", {})
    for label, name in (("ONNX Runtime", "onnxruntime"), ("TensorRT", "tensorrt")):
        if measured := runtimes.get(name):
            prefix = "images_per_s_"
            by_batch = {
                key.removeprefix(prefix): rate for key, rate in measured.items() if key.startswith(prefix)
            }
            lines.append(pair_line(label, measured, by_batch))
    batches = sorted({int(batch) for *_, by_batch in lines for batch in by_batch})
    columns = ["", "p50 of 1, ms", "p99", *(f"images/s at {batch}" for batch in batches)]
    cells = [[*line, *(figure(by_batch.get(str(batch))) for batch in batches)] for *line, by_batch in lines]
    said = [part[key] for part in (parts.get("pair", {}), parts.get("pair-compiled", {}), runtimes)
            for key in ("note", "fault") if key in part]  # fmt: skip
    said += runtimes.get("missing", [])
    return table(columns, cells) + "".join(f"\n\n{sentence}" for sentence in said)


def pair_line(label: str, part: Mapping[str, Any], by_batch: Mapping[str, float]) -> list[Any]:
    """Label, p50, p99 and the rates by batch."""
    dtype = f", {part['dtype']}" if "dtype" in part else ""
    dtype += ", CUDA graph" if part.get("cuda_graph") else ""
    return [label + dtype, figure(part.get("p50_ms")), figure(part.get("p99_ms")), by_batch]


def limit(parts: Parts) -> str:
    """The table against the limit that arithmetic sets."""
    measured = parts.get("machine", {}).get("matrix_tflops")
    counted = parts.get("pair", {}).get("gflop_an_image")
    chain = best_chain(parts)
    lines = []
    for label, tflops in (
        *((f"{tflops:,.0f} TFLOP/s", tflops) for tflops in DATA_SHEET_TFLOPS),
        ("what a matrix product reached here", measured),
    ):
        bound = tflops and 1000 * tflops / GFLOP_AN_IMAGE
        lines.append([label, figure(bound), percent(chain / bound if bound and chain else None)])
    here = f" Counted here: {counted:.3g} GFLOP." if counted else ""
    return table((f"{GFLOP_AN_IMAGE} GFLOP an image at", "images/s at most", "best chain's share"), lines) + (
        f"\n\n{here.strip()}" if here else ""
    )


def training(parts: Parts) -> str:
    """A line a preset."""
    lines = []
    for preset in ("paper", "edge"):
        fit, loops = parts.get(f"fit-{preset}", {}), parts.get(f"loops-{preset}", {})
        student, teacher = loops.get("student_training_gflop"), loops.get("teacher_gflop")
        both = student + teacher if student and teacher else None
        rates = [
            fit.get("loop_images_per_s"),
            loops.get("plain_images_per_s"),
            loops.get("good_images_per_s"),
        ]
        shares = [
            share_of_peak(parts, rate, gflop)
            for rate, gflop in zip(rates, (student, both, both), strict=True)
        ]
        cells = [
            f"{figure(rate)} ({percent(share)})" if rate else ""
            for rate, share in zip(rates, shares, strict=True)
        ]
        weights = fit.get("weights") or loops.get("weights", "")
        lines.append(
            [f"`{preset}`, {weights} weights", *cells, figure(fit.get("steps")), figure(fit.get("fit_s"))]
        )
    columns = ("", "`train fit`, images/s", "plain loop", "good loop", "steps", "whole fit, s")
    reasons = (parts.get(f"loops-{preset}", {}).get("not_compiled") for preset in ("paper", "edge"))
    said = [f"The good loop is not compiled: {reason}." for reason in dict.fromkeys(reasons) if reason]
    return "\n\n".join([table(columns, lines), *said])


def judged(parts: Parts) -> str:
    """Measures of each fit's checkpoint, judged on the device and on the CPU."""
    lines = []
    for preset in ("paper", "edge"):
        fit = parts.get(f"fit-{preset}", {})
        for key in sorted((key for key in fit if key.startswith("judged_on_")), reverse=True):
            device = key.removeprefix("judged_on_")
            seconds = fit.get(f"judging_on_{device}_s")
            lines.append(
                [f"`{preset}` on {device}", *(f"{value:.4f}" for value in fit[key].values()), figure(seconds)]
            )
    if not lines:
        return ""
    note = "With random weights these only show that both devices judge alike."
    return table(("one checkpoint, judged", "image AUROC", "pixel AUROC", "PRO", "s"), lines) + f"\n\n{note}"


def fusion(parts: Parts) -> str:
    """Images/s by processes or instances, with and without maps."""
    part = parts.get("fusion", {})
    lines = []
    for label, name in (
        ("plain Python, processes", "python"),
        ("tritonserver over gRPC, instances", "served"),
    ):
        measured = part.get(name, {})
        for count in dict.fromkeys(key.split()[0] for key in measured):
            rates = [figure(measured.get(f"{count} {mode}")) for mode in ("maps", "scores")]
            lines.append([f"{label}: {count}", *rates])
    said = [part[key] for key in ("note", "fault") if key in part]
    if "clients" in part:
        said.append(
            f"{part['clients']} clients on the same {part.get('cores')} cores, requests of {part['batch']} images."
        )
    return table(("", "images/s with maps", "with scores alone"), lines) + "".join(
        f"\n\n{line}" for line in said
    )


def gpu_tests(part: Mapping[str, Any]) -> str:
    """What passed, and the names of what did not."""
    if "passed" not in part:
        return str(part.get("note") or part.get("fault") or "Not run.")
    lines = [f"{part['passed']} passed, {len(part['skipped'])} were skipped, {len(part['failed'])} failed."]
    for what in ("failed", "skipped"):
        lines += [f"- {what}: `{name}` {' '.join(why)}" for name, why in part[what].items()]
    return "\n".join(lines)


def part_table(parts: Parts) -> str:
    """What each part took, and why one did not come to its end."""
    said = [sentence for part in parts.values() for sentence in part.get("memory", [])]
    if any(part.get("finite") is False for part in parts.values()):
        said.append("Distances of the bare pair were not finite: its rates are of no use.")
    return table(("part", "s", ""), list(part_lines(parts))) + "".join(f"\n\n{line}" for line in said)


def part_lines(parts: Parts) -> Iterator[list[str]]:
    """Name, seconds and fault."""
    for name, part in parts.items():
        yield [name, figure(part.get("seconds")), part.get("fault", "done")]


def file_name(card: str) -> str:
    """gpu-h100.md of `NVIDIA H100 80GB HBM3`."""
    words = re.findall(r"[a-z0-9]+", card.lower())
    known = [word for word in words if re.fullmatch(r"[a-z]{1,3}\d{1,4}[a-z]*", word)]
    return f"gpu-{(known or [word for word in words if word != 'nvidia'] or ['unknown'])[0]}.md"
