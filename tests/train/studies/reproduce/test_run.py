"""All fifteen categories of MVTec AD, on a rendered tree with the same names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from train.__main__ import main
from train.data.sources import MVTEC_AD_CATEGORIES
from train.data.sources.synthetic.dataset import render_category
from train.errors import ConfigError
from train.studies.paper_figures import OURS, table_1
from train.studies.reproduce.run import chosen_categories
from train.studies.run_result import RunResult

TINY = (
    *("--preset", "edge", "--teacher", "test_resnet", "--student", "test_efficientnet", "--random-weights"),
    *("--image-size", "32", "--batch-size", "4", "--steps", "2"),
)
MISSING, KEPT_DEFECTS = "hazelnut", 2


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all names, six images to train on and three to test in each."""
    root = tmp_path_factory.mktemp("mvtec_ad")
    for category in MVTEC_AD_CATEGORIES:
        folder = render_category(
            root, category=category, image_size=32, n_train=6, n_test_good=1, n_per_defect=1
        )
        defects = sorted(path for path in (folder / "test").iterdir() if path.name != "good")
        for spare in defects[KEPT_DEFECTS:]:
            shutil.rmtree(spare)
    return root


def reproduce(tree: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["reproduce", "--data", str(tree), *TINY, *options])


def modified(runs: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/checkpoint.safetensors")}


@pytest.mark.slow
def test_fifteen_categories_one_of_them_missing_at_first(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    partial = tmp_path / "data"
    shutil.copytree(tree, partial, ignore=shutil.ignore_patterns(MISSING))
    first = reproduce(partial)
    assert first.exit_code == 1
    assert f"1 of 15 categories failed: {MISSING};" in first.stderr
    assert f"{MISSING} failed: Unknown category '{MISSING}'" in first.stdout
    runs = Path("runs")
    trained = modified(runs)
    assert sorted(trained) == sorted(set(MVTEC_AD_CATEGORIES) - {MISSING})

    shutil.copytree(tree / MISSING, partial / MISSING)
    second = reproduce(partial)
    assert second.exit_code == 0, second.output
    now = modified(runs)
    assert {name: now[name] for name in trained} == trained  # none of them twice
    assert MISSING in now

    content = json.loads((runs / "reproduce.json").read_text())
    assert tuple(content["categories"]) == MVTEC_AD_CATEGORIES
    measured = [entry["metrics"]["image_auroc"] for entry in content["categories"].values()]
    text = (runs / "reproduce.md").read_text()
    average = 100 * sum(measured) / 15
    assert f"| average of all 15 | {average:.1f} | 98.7 |" in " ".join(text.split())
    assert "SYNTHETIC DATA" in text
    assert "UNTRAINED" in text
    assert "SYNTHETIC DATA" in second.stderr
    assert (runs / "reproduce.png").read_bytes().startswith(b"\x89PNG")
    for category in MVTEC_AD_CATEGORIES:
        paper = f"{table_1(OURS, category):.1f}"
        shown = f"{100 * content['categories'][category]['metrics']['image_auroc']:.1f}"
        assert f"| {category} | {shown} | {paper} |" in " ".join(text.split())


def test_some_categories_in_the_papers_order() -> None:
    assert chosen_categories("all") == MVTEC_AD_CATEGORIES
    assert chosen_categories("zipper, bottle") == ("bottle", "zipper")
    with pytest.raises(
        ConfigError, match="MVTec AD has no category 'bottel'; expected some of bottle, cable"
    ):
        chosen_categories("bottel,zipper")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"by_size": {"small": {"image_auroc": 0.5, "n_images": 3}}}, 50.0),
        ({"by_size": {"small": {"image_auroc": None}}}, None),
        ({"by_size": {"large": {"image_auroc": 0.5}}}, None),
        ({"by_size": {}}, None),
        ({"by_size": None}, None),
        ({}, None),
    ],
)
def test_measures_by_size_are_read_where_they_are(metrics: dict[str, object], expected: float | None) -> None:
    assert RunResult("pill", 0, metrics).percent_of_size("small") == expected
