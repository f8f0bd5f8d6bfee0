"""`python -m client predict`, against a real server where there is something to ask."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner, Result
from PIL import Image

from client.__main__ import main
from client.pictures.overlays import CAPTION, PANEL
from client.predictions.jsonl import read_jsonl
from client.report import auroc
from deploy.server import TritonServer
from tests.products import ROOT, TIMEOUT_S, Product, unused_url

pytest_plugins = ["tests.serving"]
Predict = Callable[..., Result]


@pytest.fixture
def predict(server: TritonServer, edge: Product) -> Predict:
    def run(*arguments: object) -> Result:
        options = ["--category", edge.name, "--url", server.grpc_url, "--timeout-s", "60"]
        return CliRunner().invoke(main, ["predict", *map(str, arguments), *options])

    return run


@pytest.fixture
def images(edge: Product, tmp_path: Path) -> Path:
    """A copy of the product's test set."""
    return shutil.copytree(edge.data.root / "test", tmp_path / "plate" / "test")


@pytest.mark.triton
def test_a_folder_is_judged_and_shown(predict: Predict, edge: Product, images: Path) -> None:
    done = predict(images)
    assert done.exit_code == 0, done.output
    expected = edge.expected
    anomalous = int(expected.pred_label.sum())
    n_images = len(edge.data.test)
    assert f"{n_images} judged: {anomalous} anomalous, {n_images - anomalous} good." in done.stdout
    by_score = sorted(zip(expected.pred_score[:, 0], edge.data.test, strict=True), key=lambda pair: -pair[0])
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in done.stdout.splitlines()
        if ".png" in line
    ]
    assert [row[0] for row in rows] == [f"{image.defect}/{image.path.name}" for _, image in by_score]
    assert {row[4] for row in rows} == {str(edge.checkpoint.release_id)}
    assert [float(row[2]) for row in rows] == pytest.approx([score for score, _ in by_score], abs=1e-3)


@pytest.mark.triton
@pytest.mark.parametrize("encoded", [False, True])
def test_jsonl_holds_every_verdict(predict: Predict, edge: Product, images: Path, encoded: bool) -> None:
    jsonl = images.parent / "out" / "predictions.jsonl"
    done = predict(images, "--jsonl", jsonl, *(["--encoded"] if encoded else []))
    assert done.exit_code == 0, done.output
    entries = read_jsonl(jsonl)
    assert [entry.image for entry in entries] == [
        str(images / image.defect / image.path.name) for image in edge.data.test
    ]
    for index, entry in enumerate(entries):
        assert (entry.category, entry.defect) == (edge.name, edge.data.test[index].defect)
        assert entry.score == pytest.approx(float(edge.expected.pred_score[index, 0]), abs=1e-3)
        assert entry.threshold == float(edge.expected.threshold[index, 0])
        assert entry.anomalous == edge.expected.pred_label[index, 0]
        assert entry.release_id == edge.checkpoint.release_id
        assert entry.overlay is None
        assert entry.latency_ms > 0
    scores, defective = zip(*((entry.score, entry.defect != "good") for entry in entries), strict=True)
    served = auroc(np.array(scores), np.array(defective))
    assert served == pytest.approx(edge.metrics["image_auroc"], abs=0.0005)


@pytest.mark.triton
def test_overlays_are_pictures(predict: Predict, images: Path) -> None:
    overlays, jsonl = images.parent / "overlays", images.parent / "predictions.jsonl"
    assert predict(images, "--overlays", overlays, "--jsonl", jsonl).exit_code == 0
    for entry in read_jsonl(jsonl):
        assert entry.overlay == str(overlays / Path(entry.image).relative_to(images))
        with Image.open(entry.overlay) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("PNG", "RGB")
            assert picture.size == (2 * PANEL, CAPTION + PANEL)
            pixels = np.asarray(picture)[CAPTION:]
        assert (pixels[:, :PANEL] != pixels[:, PANEL:]).any()


@pytest.mark.triton
def test_a_broken_image_is_named_and_the_good_ones_are_judged(predict: Predict, images: Path) -> None:
    first, second = sorted((images / "good").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:500])
    second.write_bytes(b"no image")
    jsonl = images.parent / "predictions.jsonl"
    n_images = len(list((images / "good").iterdir()))
    for options, exit_code, word in (((), 1, "Error"), (("--skip-broken",), 0, "Skipped")):
        done = predict(images / "good", "--jsonl", jsonl, *options)
        assert done.exit_code == exit_code
        sentences = [line for line in done.stderr.splitlines() if line.startswith(f"{word}: ")]
        assert [sentence.split(" is ")[0] for sentence in sentences] == [
            f"{word}: {first}",
            f"{word}: {second}",
        ]
        assert f"2 of {n_images} images are broken." in done.stderr
    judged = {Path(entry.image) for entry in read_jsonl(jsonl)}
    assert judged == set((images / "good").iterdir()) - {first, second}
    assert f"{len(judged)} judged: " in done.stdout


@pytest.mark.triton
def test_files_and_a_threshold_of_ones_own(predict: Predict, images: Path) -> None:
    files = sorted((images / "good").iterdir())[:2]
    jsonl = images.parent / "predictions.jsonl"
    assert (
        predict(*files, "--threshold", 0, "--overlays", images.parent / "o", "--jsonl", jsonl).exit_code == 0
    )
    entries = read_jsonl(jsonl)
    assert [(entry.image, entry.threshold, entry.anomalous) for entry in entries] == [
        (str(file), 0.0, True) for file in files
    ]


@pytest.mark.triton
def test_the_module_runs_and_finds_the_server_in_the_environment(
    server: TritonServer, edge: Product, images: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "client", "predict", images / "good", "--category", edge.name],
        env={"ASTMFR_URL": server.grpc_url, "PATH": "/usr/bin:/bin"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(list((images / 'good').iterdir()))} judged: " in done.stdout


@pytest.mark.triton
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "gone does not exist; give image files or folders of them."),
        ("empty", "holds no images (.png, "),
    ],
)
def test_paths_without_images_are_refused(predict: Predict, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    done = predict(tmp_path / path, "--jsonl", tmp_path / "predictions.jsonl")
    assert done.exit_code == 1
    assert message in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


@pytest.mark.triton
def test_an_unknown_category_ends_with_the_known_ones(
    server: TritonServer, edge: Product, images: Path
) -> None:
    done = CliRunner().invoke(main, ["predict", str(images), "--category", "pill", "--url", server.grpc_url])
    assert done.exit_code == 1
    known = served_categories(server)
    assert edge.name in known
    assert done.stderr == (
        f"Error: Category 'pill' is not served at {server.grpc_url}; it serves {', '.join(known)}; publish it with "
        "`make export CATEGORY=pill` and start the server again.\n"
    )


def served_categories(server: TritonServer) -> list[str]:
    """All that have both ensembles; which those are depends on the modules that used this server before."""
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        index = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
    ready = {model.name for model in index if model.state == "READY"}
    return sorted(name for name in ready if f"{name}_encoded" in ready)


def test_a_missing_server_ends_with_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    url = unused_url()
    done = CliRunner().invoke(main, ["predict", str(tmp_path), "--category", "plate", "--url", url])
    assert done.exit_code == 1
    assert done.stderr == f"Error: No Triton server answers at {url}; start one with `make serve`.\n"
    assert done.stdout == ""
