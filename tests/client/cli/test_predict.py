"""`python -m client predict`, against a real server where there is something to ask."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
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
from tests.client.samples import save_image
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
    expected = edge.expected
    anomalous = int(expected.pred_label.sum())
    assert done.exit_code == int(anomalous > 0), done.output
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
    table = images.parent / "predictions.csv"
    done = predict(images, "--jsonl", jsonl, "--csv", table, *(["--encoded"] if encoded else []))
    entries = read_jsonl(jsonl)
    assert done.exit_code == int(any(entry.anomalous for entry in entries)), done.output
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [entry.image for entry in entries]
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
        assert entry.original_size == (160, 160)
        assert entry.defects is not None
        assert bool(entry.defects) == bool(edge.expected.pred_mask[index].any())
    scores, defective = zip(*((entry.score, entry.defect != "good") for entry in entries), strict=True)
    served = auroc(np.array(scores), np.array(defective))
    assert served == pytest.approx(edge.metrics["image_auroc"], abs=0.0005)


@pytest.mark.triton
def test_overlays_are_pictures(predict: Predict, images: Path) -> None:
    overlays, jsonl = images.parent / "overlays", images.parent / "predictions.jsonl"
    page = images.parent / "served.html"
    assert predict(images, "--overlays", overlays, "--jsonl", jsonl, "--report", page).exit_code in (0, 1)
    assert page.read_text().count("data:image/jpeg") >= len(read_jsonl(jsonl))
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
    for options, word in (((), "Error"), (("--skip-broken",), "Skipped")):
        done = predict(images / "good", "--jsonl", jsonl, *options)
        rejected = any(entry.anomalous for entry in read_jsonl(jsonl))
        assert done.exit_code == (int(rejected) if options else 2)
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
        predict(*files, "--threshold", 0, "--overlays", images.parent / "o", "--jsonl", jsonl).exit_code == 1
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
    assert done.returncode == int(" 0 anomalous" not in done.stdout), done.stderr
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
    assert done.exit_code == 2
    assert message in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


@pytest.mark.triton
def test_an_unknown_category_ends_with_the_known_ones(
    server: TritonServer, edge: Product, images: Path
) -> None:
    done = CliRunner().invoke(main, ["predict", str(images), "--category", "pill", "--url", server.grpc_url])
    assert done.exit_code == 2
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


@pytest.mark.triton
def test_what_is_left_out_is_named_and_the_exit_code_says_so(predict: Predict, images: Path) -> None:
    lot = images.parent / "lot"
    lot.mkdir()
    (lot / "linked").symlink_to(images / "good", target_is_directory=True)
    n_images = len(list((images / "good").iterdir()))
    (lot / "notes.txt").touch()
    done = predict(lot, "--threshold", 1e9)
    assert (done.exit_code, f"{n_images} judged: " in done.stdout) == (0, True)
    assert done.stderr == f"Left out: {lot}/notes.txt is no image.\n"
    (lot / "gone.png").symlink_to(images / "nowhere.png")
    (lot / "part.gif").touch()
    for options, exit_code, word in (((), 2, "Error"), (("--skip-broken",), 0, "Skipped")):
        done = predict(lot, "--threshold", 1e9, *options)
        assert (done.exit_code, f"{n_images} judged: " in done.stdout) == (exit_code, True)
        assert f"{word}: {lot}/gone.png is a link to nothing; it was not judged.\n" in done.stderr
        assert f"{word}: {lot}/part.gif has the ending '.gif'" in done.stderr
        assert "2 files or folders that may be parts were left out." in done.stderr


@pytest.mark.triton
def test_masks_of_the_data_set_are_not_judged(predict: Predict, edge: Product) -> None:
    root, folder = edge.data.root, edge.data.root / "ground_truth"
    done = predict(root, "--threshold", 1e9)
    assert done.exit_code == 0, done.output
    assert f"{len(edge.data.test) + len(edge.data.train_good)} judged: " in done.stdout
    assert f"{folder} holds ground truth masks, not parts" in done.stderr
    done = predict(folder)
    assert (done.exit_code, "which holds ground truth masks and no parts" in done.stderr) == (2, True)


@pytest.fixture
def command(server: TritonServer, edge: Product) -> list[str]:
    """The command in a process of its own; a path is to follow."""
    options = ["--category", edge.name, "--url", server.grpc_url, "--timeout-s", "60"]
    return [sys.executable, "-m", "client", "predict", *options]


@pytest.fixture
def many(images: Path) -> Path:
    """More images than are judged while a test looks on, by links to one."""
    folder = images.parent / "many"
    folder.mkdir()
    image = next((images / "good").iterdir())
    for index in range(2000):
        (folder / f"{index:04d}.png").symlink_to(image)
    return folder


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_run_that_is_stopped_keeps_its_answers(
    command: list[str], many: Path, number: signal.Signals
) -> None:
    jsonl = many.parent / "predictions.jsonl"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    table, page = many.parent / "predictions.csv", many.parent / "served.html"
    outputs = ["--jsonl", jsonl, "--csv", table, "--report", page]
    with subprocess.Popen([*command, many, *outputs], **pipes) as process:
        while not (jsonl.exists() and jsonl.read_bytes().count(b"\n") > 2):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        try:
            shown, faults = process.communicate(timeout=60)
        finally:
            process.kill()
    entries = read_jsonl(jsonl)
    assert process.returncode == 2
    assert [Path(entry.image).name for entry in entries] == [f"{i:04d}.png" for i in range(len(entries))]
    assert f"{len(entries)} judged: " in shown
    assert f"{2000 - len(entries)} of 2000 not judged." in shown
    assert f"What was answered so far is in {jsonl} and {table}." in faults
    assert table.read_bytes().count(b"\n") == 1 + len(entries)
    assert page.read_text().rstrip().endswith("</html>")
    assert "Error: Interrupted." in faults
    assert f"The first image without an answer is {many}/{len(entries):04d}.png." in faults


@pytest.mark.triton
def test_a_reader_that_leaves_and_an_old_terminal_cost_no_answer(command: list[str], images: Path) -> None:
    """`| head -1`, an ASCII locale, file names that are no UTF-8, a full disk under standard output."""
    folder, jsonl = images.parent / "odd", images.parent / "predictions.jsonl"
    folder.mkdir()
    image = next((images / "good").iterdir())
    for name in (b"f\xfcr.png", "größe → €.png".encode(), b"a\nb.png", b"n" * 251 + b".png"):
        shutil.copy(image, folder / os.fsdecode(name))
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = [*command, folder, "--jsonl", jsonl, "--overlays", images.parent / "overlays"]
    arguments += ["--threshold", "1e9"]
    for output, exit_code in (("| head -1", 0), ("2>&1 | head -1", 0), ("> /dev/full", 2)):
        line = f"set -o pipefail; {shlex.join(map(str, arguments))} {output}"
        done = subprocess.run(
            ["bash", "-c", line], env=environment, cwd=ROOT, capture_output=True, timeout=120, check=False
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (exit_code, False), done.stderr
        assert len(read_jsonl(jsonl)) == 4
        assert len(list((images.parent / "overlays").iterdir())) == 4
        jsonl.unlink()


@pytest.mark.triton
def test_more_in_flight_than_the_server_queues_is_survived(predict: Predict, many: Path) -> None:
    """Every image is judged, or named as one that was not."""
    for path in sorted(many.iterdir())[600:]:
        path.unlink()
    jsonl = many.parent / "predictions.jsonl"
    table = many.parent / "predictions.csv"
    done = predict(
        many, "--in-flight", 500, "--score-only", "--jsonl", jsonl, "--csv", table, "--threshold", 1e9
    )
    unanswered = table.read_text().count(",not judged,")
    assert f"{600 - unanswered} judged: " in done.stdout
    assert len(read_jsonl(jsonl)) == 600 - unanswered
    assert done.exit_code == (2 if unanswered else 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--jsonl", "."], ". is a folder; give the name of a file."),
        (["--jsonl", "file/a.jsonl"], "file/a.jsonl cannot be written (Not a directory)"),
        (["--jsonl", "file"], "file exists and holds no predictions"),
        (["--jsonl", "n" * 300], "n cannot be written (File name too long)"),
        (["--overlays", "file"], "file is a file; give a folder."),
        (["--overlays", "lot/overlays"], "lot/overlays lies in lot, whose images are judged"),
    ],
)
def test_targets_are_checked_before_the_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(Path("lot/a.png"))
    Path("file").write_text("notes")
    arguments = ["predict", "lot", "--category", "plate", "--url", unused_url(), *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"{sentence}" in done.stderr
    assert "server" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "file", "lot"]


@pytest.mark.parametrize("option", ["--threshold", "--timeout-s"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "high"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, option: str, value: str) -> None:
    image = save_image(tmp_path / "a.png")
    done = CliRunner().invoke(main, ["predict", str(image), "--category", "plate", option, value])
    assert done.exit_code == 2
    assert value in done.stderr


@pytest.mark.parametrize("option", ["--category", "--url"])
def test_a_name_that_cannot_be_sent_is_refused(tmp_path: Path, option: str) -> None:
    arguments = ["predict", str(save_image(tmp_path / "a.png")), "--category", "plate", option, "f\udcfc"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, r"'f\udcfc' is not UTF-8." in done.stderr) == (2, True)


@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_deadline_that_has_passed_is_refused(tmp_path: Path, value: str) -> None:
    image = save_image(tmp_path / "a.png")
    done = CliRunner().invoke(main, ["predict", str(image), "--category", "plate", "--timeout-s", value])
    assert (done.exit_code, "is not in the range x>0" in done.stderr) == (2, True)


def test_a_missing_server_ends_with_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    url = unused_url()
    done = CliRunner().invoke(main, ["predict", str(tmp_path), "--category", "plate", "--url", url])
    assert done.exit_code == 2
    assert done.stderr == f"Error: No Triton server answers at {url}; start one with `make serve`.\n"
    assert done.stdout == ""
