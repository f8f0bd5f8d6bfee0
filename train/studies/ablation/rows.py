"""What the paper's ablations vary: Tables 4, 6, 7 and 8, and Figure 6, as rows of options (Section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from train.config import PRESETS, FitConfig
from train.studies.paper_figures import FIGURE_6_RATIOS, TABLE_4, TABLE_6, TABLE_7, TABLE_8, UNKNOWN, Auroc

StudentWeights = Literal["pretrained", "scratch"]
# The networks in ResNet50's part in Tables 6 and 7; their weights come from where those of the preset's pair do.
THIRD_NETWORKS: Mapping[str, str] = {"paper": "resnet50", "edge": "tf_efficientnet_lite1"}
YES, NO = "✓", ""


@dataclass(frozen=True)
class Networks:
    """The networks in the paper's three parts.

    Attributes:
        wide: WideResNet50's, the teacher.
        resnext: ResNeXt50's, the student.
        resnet: ResNet50's.
        identical_student: how a student that is the teacher's network starts.
    """

    wide: str
    resnext: str
    resnet: str
    identical_student: StudentWeights = "scratch"

    @classmethod
    def of_preset(cls, preset: str, **chosen: Any) -> Networks:
        """The preset's teacher and student and a third network, except for the fields that are chosen and not None."""
        config = PRESETS[preset]
        fields = {"wide": config.teacher, "resnext": config.student, "resnet": THIRD_NETWORKS[preset]}
        return cls(**fields | {name: value for name, value in chosen.items() if value is not None})

    def pair(self, teacher: str, student: str) -> dict[str, Any]:
        """The fields of a pair in which only a student that is the teacher's network may start from scratch."""
        weights = self.identical_student if teacher == student else "pretrained"
        return _student(teacher, student, weights)

    def identical_note(self) -> str:
        """A sentence on how students of identical pairs start."""
        scratch = self.identical_student == "scratch"
        start = "from scratch, as in STFPM, the paper's baseline" if scratch else "pretrained"
        return f"Students of identical pairs start {start} (--identical-student)."


PAPER_NETWORKS = Networks.of_preset("paper")


@dataclass(frozen=True)
class AblationRow:
    """One row: how it is labelled, the fields of `FitConfig` it sets, and what the paper found."""

    label: tuple[str, ...]
    overrides: Mapping[str, Any]
    paper: Auroc = UNKNOWN


@dataclass(frozen=True)
class Ablation:
    """A table of the paper.

    Attributes:
        name: such as `table-4`; files are named after it.
        title: what stands above it.
        columns: heads of the rows' labels.
        rows: in the paper's order.
        notes: sentences below it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[AblationRow, ...]
    notes: tuple[str, ...] = field(default=())


def table_4(networks: Networks) -> Ablation:
    """Effects of AST and MFR: experiments 1 to 4.

    Without AST the student has the teacher's network and starts from scratch, as in STFPM, the paper's baseline:
    pretrained, it would equal the teacher from the start. Without MFR there are neither masks nor generation blocks.
    """

    def row(experiment: int, mfr: bool, ast: bool) -> AblationRow:
        pair = networks.pair(networks.wide, networks.resnext if ast else networks.wide)
        stages = {} if mfr else {"generation_stages": ()}
        label = (str(experiment), YES if mfr else NO, YES if ast else NO)
        return AblationRow(label, {**pair, **stages}, TABLE_4[mfr, ast])

    return Ablation(
        name="table-4",
        title="Table 4: effects of AST and MFR",
        columns=("Exp.", "MFR", "AST"),
        rows=(row(1, False, False), row(2, False, True), row(3, True, False), row(4, True, True)),
        notes=(networks.identical_note(),),
    )


def table_6(networks: Networks) -> Ablation:
    """Effects of the asymmetric structure: three identical pairs and the asymmetric one, all with MFR."""
    parts = (("resnet", "resnet"), ("wide", "wide"), ("resnext", "resnext"), ("wide", "resnext"))

    def row(teacher: str, student: str) -> AblationRow:
        pair = _named(networks, teacher, student)
        return AblationRow(pair, networks.pair(*pair), TABLE_6[_named(PAPER_NETWORKS, teacher, student)])

    return Ablation(
        name="table-6",
        title="Table 6: effects of the asymmetric S-T structure",
        columns=("teacher", "student"),
        rows=tuple(row(*part) for part in parts),
        notes=(networks.identical_note(),),
    )


def table_7(networks: Networks) -> Ablation:
    """Effects of a pretrained student, and the six asymmetric pairs of three networks."""
    parts = [
        (teacher, student)
        for teacher in ("resnet", "wide", "resnext")
        for student in ("resnet", "wide", "resnext")
        if teacher != student
    ]

    def row(teacher: str, student: str, weights: StudentWeights) -> AblationRow:
        pair, paper_pair = _named(networks, teacher, student), _named(PAPER_NETWORKS, teacher, student)
        paper = TABLE_7.get((*paper_pair, weights == "pretrained"), UNKNOWN)
        return AblationRow((*pair, weights), _student(*pair, weights), paper)

    return Ablation(
        name="table-7",
        title="Table 7: effects of a pretrained student and of different backbones",
        columns=("teacher", "student", "student's weights"),
        rows=(row("wide", "resnext", "scratch"), *(row(*part, "pretrained") for part in parts)),
        notes=(
            "The paper's Table 7 cannot be read in the text at hand, its columns run together: its figures stand "
            "only where another of its tables gives the same pair.",
        ),
    )


def table_8(networks: Networks) -> Ablation:
    """Effects of where the MFR module is added: all subsets of the three stages."""

    def row(stages: tuple[int, ...], paper: Auroc) -> AblationRow:
        label = tuple(YES if stage in stages else NO for stage in (1, 2, 3))
        pair = networks.pair(networks.wide, networks.resnext)
        return AblationRow(label, {**pair, "generation_stages": stages}, paper)

    return Ablation(
        name="table-8",
        title="Table 8: effects of the locations of the MFR module",
        columns=("stage1", "stage2", "stage3"),
        rows=tuple(row(stages, paper) for stages, paper in TABLE_8.items()),
        notes=(
            "The paper's first row is its experiment 1 of Table 4, an identical pair; the same pair as in the other "
            "rows is its experiment 2 (96.5 and 97.3), and that is what runs here.",
        ),
    )


def figure_6(networks: Networks) -> Ablation:
    """Performance under different masking ratios."""
    pair = networks.pair(networks.wide, networks.resnext)
    return Ablation(
        name="figure-6",
        title="Figure 6: performance under different masking ratios",
        columns=("masking ratio",),
        rows=tuple(AblationRow((str(ratio),), {**pair, "mask_ratio": ratio}) for ratio in FIGURE_6_RATIOS),
        notes=("The paper shows this as a plot without figures and calls 0.3 and 0.5 optimal.",),
    )


ABLATIONS: Mapping[str, Callable[[Networks], Ablation]] = {
    "table-4": table_4,
    "table-6": table_6,
    "table-7": table_7,
    "table-8": table_8,
    "figure-6": figure_6,
}


def run_name(config: FitConfig) -> str:
    """A run's folder, named after all that an ablation varies: equal rows of two tables share a run."""
    stages = "".join(map(str, config.generation_stages)) or "none"
    return (
        f"{config.teacher}-{config.student}-{config.student_weights}-stages-{stages}-mask-{config.mask_ratio}"
    )


def _student(teacher: str, student: str, weights: StudentWeights) -> dict[str, Any]:
    chosen: dict[str, Any] = {"teacher": teacher, "student": student, "student_weights": weights}
    # A student from scratch has no BatchNorm statistics to freeze.
    return chosen | ({"freeze_batchnorm": False} if weights == "scratch" else {})


def _named(networks: Networks, teacher: str, student: str) -> tuple[str, str]:
    return getattr(networks, teacher), getattr(networks, student)
