"""A graph for pictures of any size, cut where its activations become small: what lies before runs in thin strips.

Most of a network's memory goes to its first layers: up to the first stage, a map has a position for every pixel, or
every 2 x 2, and after it one for every 4 x 4. Those layers look a few pixels far, so that thin strips of them cost next
to nothing, and the rest sees the whole picture (`model_repository.picture_strips`). A student's comparison at the first
stage, which may measure the distance from hundreds of usual differences, is a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from export.errors import VerificationError
from export.graphs.chain import open_session, teacher_features
from export.graphs.receptive_field import bytes_per_pixel, find_reaches, strip_margin, strip_step
from export.manifest import GraphFiles
from export.records import GraphPart
from model_repository.picture_strips import Array, Part, run_parts

FIRST = "_1"  # ends the names of the first stage's outputs
MAX_DIFFERENCE = 1e-4  # of an output's largest value
PIECE = (320, 256)  # rows and columns of the image with which the parts are compared, at most
Cut = tuple[list[str], list[str]]  # a part's inputs and outputs


def write_parts(
    files: GraphFiles, images: NDArray[np.uint8], *, max_difference: float = MAX_DIFFERENCE
) -> dict[str, list[GraphPart]]:
    """Cut both graphs of a build, write their parts beside them, and hold what they give to what the graphs give.

    Args:
        files: of both graphs.
        images: [N, H, W, 3]; a piece of the first one is looked at.
        max_difference: of an output, as a share of its largest value.

    Returns:
        By graph its parts, in the order in which they run. One without a place to cut at is one part, its own file.

    Raises:
        VerificationError: the parts give something else than the graph, or how far it looks is not known, see
            `export.graphs.receptive_field`.
    """
    parts = {path.stem: _write_parts_of(path) for path in files}
    _check(files, parts, images[:1, : PIECE[0], : PIECE[1]], max_difference)
    return parts


def part_files(parts: Mapping[str, Sequence[GraphPart]]) -> set[str]:
    """The names of the files of all graphs' parts."""
    return {part.file for graph in parts.values() for part in graph}


def _write_parts_of(path: Path) -> list[GraphPart]:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    jumps = {name: reach.jump for name, reach in find_reaches(model.graph, path.name).items()}
    cuts = _cuts(model.graph, jumps)
    if len(cuts) == 1:
        return [_describe(model.graph, path.name, *cuts[0], jumps)]
    parts = []
    for number, (inputs, outputs) in enumerate(cuts, start=1):
        part = Extractor(model).extract_model(inputs, outputs)
        file = path.with_name(f"{path.stem}_part_{number}.onnx")
        onnx.save(part, file)
        parts.append(_describe(part.graph, file.name, inputs, outputs, jumps))
    return parts


def _describe(
    graph: onnx.GraphProto, file: str, inputs: Sequence[str], outputs: Sequence[str], jumps: Mapping[str, int]
) -> GraphPart:
    reaches = find_reaches(graph, file, jumps=jumps)
    return GraphPart(
        file=file,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        strip_step=strip_step(graph, reaches),
        strip_margin=strip_margin(graph, reaches),
        bytes_per_pixel=bytes_per_pixel(graph, reaches),
    )


def _cuts(graph: onnx.GraphProto, jumps: Mapping[str, int]) -> list[Cut]:
    """Inputs and outputs of each part: up to the first stage, its comparison, up to the second, and so on.

    A stage at which there is nothing to cut goes with the rest.
    """
    maps = [output.name for output in graph.output if output.name in jumps]
    waiting = [
        output.name for output in graph.output
    ]  # an id among them asks for the batch alone: any part gives it
    producers = {output: node for node in graph.node for output in node.output}
    known = {value.name for value in graph.input}
    cuts: list[Cut] = []

    def add(outputs: list[str]) -> None:
        cuts.append((_inputs_of(outputs, producers, known), outputs))
        waiting[:] = [name for name in waiting if name not in outputs]

    for stage in ("_1", "_2"):
        here = [name for name in maps if name.endswith(stage)]
        later = [name for name in maps if name[-2:] > stage]
        cut = [name for name in _shared(here, later, producers, known) if name in jumps]
        if not cut:
            continue
        add([*cut, *(name for name in waiting if name not in maps)])
        known.update(cut)
        if own := [name for name in here if name not in known]:
            add(own)
    if waiting:
        add(list(waiting))
    return cuts


def _shared(
    here: Sequence[str], later: Sequence[str], producers: Mapping[str, onnx.NodeProto], known: set[str]
) -> list[str]:
    """What is computed for both of two sets of outputs, and asked for by what is computed for one of them."""
    ours, theirs = (
        {node.output[0]: node for node in _walk(names, producers, ends=known)} for names in (here, later)
    )
    alone = [
        node
        for nodes in (ours, theirs)
        for name, node in nodes.items()
        if not (name in ours and name in theirs)
    ]
    asked = {tensor for node in alone for tensor in node.input} | set(here)
    return [
        tensor for name, node in ours.items() if name in theirs for tensor in node.output if tensor in asked
    ]


def _inputs_of(tensors: Sequence[str], producers: Mapping[str, onnx.NodeProto], ends: set[str]) -> list[str]:
    """Of the tensors `ends`, those from which some others are computed, in a steady order."""
    used = {name for node in _walk(tensors, producers, ends=ends) for name in node.input}
    return sorted(used & ends)


def _walk(
    tensors: Sequence[str], producers: Mapping[str, onnx.NodeProto], *, ends: set[str]
) -> Iterator[onnx.NodeProto]:
    """Each node between some tensors and those that they are computed from, once; not beyond `ends`."""
    waiting, seen = list(tensors), set(ends)
    while waiting:
        tensor = waiting.pop()
        if tensor in seen or tensor not in producers:
            continue
        node = producers[tensor]
        seen.update(node.output)
        waiting += node.input
        yield node


def _check(
    files: GraphFiles,
    parts: Mapping[str, Sequence[GraphPart]],
    image: NDArray[np.uint8],
    max_difference: float,
) -> None:
    teacher = open_session(files.teacher)
    feed: dict[str, Array] = {"image": image}
    expected = {"teacher": teacher_features(teacher, image)}
    student = open_session(files.student)
    names = [output.name for output in student.get_outputs()]
    whole = student.run(names, feed | expected["teacher"])
    expected["student"] = dict(zip(names, whole, strict=True))
    for path in files:
        given = feed if path is files.teacher else feed | expected["teacher"]
        found = run_parts(opened(parts[path.stem], path.parent, strip_pixels=1), given)
        for name, value in expected[path.stem].items():
            largest = float(np.abs(value).max())
            if not np.allclose(found[name], value, rtol=0, atol=max_difference * largest):
                raise VerificationError(
                    f"{path.name} in parts gives another {name} than in one; expected the same within "
                    f"{max_difference:g} of its largest value."
                )


def _runner(file: Path, outputs: Sequence[str]) -> Callable[[dict[str, Array]], list[Array]]:
    session = open_session(file)
    return lambda feed: list(session.run(list(outputs), feed))


def opened(parts: Sequence[GraphPart], folder: Path, *, strip_pixels: int = 1 << 40) -> list[Part]:
    """Sessions of a graph's parts on the CPU, ready to run in strips of so many pixels; in one piece unless given."""
    return [
        Part(
            run=_runner(folder / part.file, part.outputs),
            inputs=part.inputs,
            outputs=part.outputs,
            step=part.strip_step,
            margin=part.strip_margin,
            pixels=strip_pixels,
        )
        for part in parts
    ]
