"""Parameters, multiply-accumulates and time of teacher-student pairs (Table 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_repository.image_size import ImageSize, height_width, size_text
from train.config import PRESETS, FitConfig, fit_config
from train.method.student import student_without_weights
from train.method.timing import time_pair
from train.studies.paper_figures import TABLE_5, TABLE_5_TEACHER, Complexity
from train.support.tables import ResultTable, number


@dataclass(frozen=True)
class PairComplexity:
    """Size and time of a pair; `paper` is the row of Table 5 for the same pair, or None.

    Attributes:
        parameters_m: of the student with its generation blocks, millions.
        gmacs: of the same for one image, thousand millions of multiply-accumulates.
        student_ms: median time of the student, one image.
        pair_ms: median time of teacher, student and distance maps, one image.
    """

    teacher: str
    student: str
    image_size: ImageSize
    parameters_m: float
    gmacs: float
    student_ms: float
    pair_ms: float
    paper: Complexity | None


def pairs_to_measure(
    preset: str | None, overrides: Mapping[str, Any], *, paper_rows: bool
) -> list[FitConfig]:
    """The three students of Table 5, and the pair that was asked for by a preset or by names.

    Raises:
        ConfigError: see `train.config.fit_config`.
    """
    configs = [fit_config("paper", {"student": student}) for student in TABLE_5] if paper_rows else []
    if preset or overrides or not paper_rows:
        configs.append(fit_config(preset or "paper", overrides))
    return list({_shape(config): config for config in configs}.values())


def measure_pair(config: FitConfig, *, device: torch.device, repeats: int) -> PairComplexity:
    """Count and time a pair with random weights, which change neither sizes nor times.

    Raises:
        ConfigError: see `train.method.student.student_without_weights`.
    """
    parameters, macs = count(student_without_weights(config), image_size=config.image_size)
    student_ms, pair_ms = time_pair(config, device=device, repeats=repeats)
    return PairComplexity(
        teacher=config.teacher,
        student=config.student,
        image_size=config.training_size,
        parameters_m=parameters / 1e6,
        gmacs=macs / 1e9,
        student_ms=student_ms,
        pair_ms=pair_ms,
        paper=paper_row(config),
    )


def count(network: nn.Module, *, image_size: ImageSize) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one image, of a network on the meta device."""
    image = torch.zeros(1, *height_width(image_size), 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    return n_parameters, counter.get_total_flops() // 2


def paper_row(config: FitConfig) -> Complexity | None:
    """The row of Table 5, where teacher, blocks and image size are the paper's."""
    papers = PRESETS["paper"].model_copy(update={"teacher": TABLE_5_TEACHER, "student": config.student})
    return TABLE_5.get(config.student) if _shape(config) == _shape(papers) else None


def complexity_table(rows: Sequence[PairComplexity], *, hardware: str, repeats: int) -> ResultTable:
    """Table 5, each figure beside the paper's."""

    def cells(row: PairComplexity) -> tuple[str, ...]:
        paper = row.paper
        parameters, gmacs, time_ms = (
            (None, None, None) if paper is None else (paper.parameters_m, paper.gmacs, paper.time_ms)
        )
        return (
            f"{row.student} of {row.teacher}, {size_text(row.image_size)} px",
            number(row.parameters_m, 2),
            number(parameters),
            number(row.gmacs, 2),
            number(gmacs),
            number(row.student_ms),
            number(time_ms),
            number(row.pair_ms),
        )

    return ResultTable(
        title="Table 5: complexity of different backbones used for the student network",
        columns=("student", "M parameters", "paper", "GMACs", "paper", "student ms", "paper", "pair ms"),
        rows=tuple(cells(row) for row in rows),
        notes=(
            f"Parameters and multiply-accumulates are of the student with its generation blocks. Times are of one "
            f"image, the median of {repeats} runs in PyTorch on {hardware}; the pair is teacher, student and "
            "distance maps. The paper's times are of an NVIDIA Titan Xp.",
            "The paper's ResNet50 row (36.3 M, 21.2 GMACs) is more than this construction comes to.",
        ),
    )


def _shape(config: FitConfig) -> tuple[Any, ...]:
    """The fields that sizes and times depend on."""
    return (
        config.teacher,
        config.student,
        config.training_size,
        config.generation_stages,
        config.generation_width,
    )
