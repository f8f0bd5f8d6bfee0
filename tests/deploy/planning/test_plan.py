"""`deploy plan`: servers from measured figures, by hand; a plan that follows another; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.__main__ import main
from deploy.errors import PlanError
from deploy.planning.figures import MEASURED, Figures
from deploy.planning.sizing import most_of_a_shard, size
from tests.products import ROOT

FIGURES = Figures(500, 100, 50, "2026-11-26", "", "")
SMALL = ("--rps", "100", "--gpu-gb", "4")


def ask(*words: str) -> Result:
    return CliRunner().invoke(main, ["plan", *words], catch_exceptions=False)


def test_memory_decides_how_many_shards_and_load_how_many_replicas() -> None:
    # 85 % of 2,000 MiB are 1,700: a server with one category, and 12 more of 100.
    one = size(13, 35, 2000, FIGURES)
    assert (one.per_server, one.shards, one.replicas) == (13, 1, 2)
    assert one.used_mib == 1700
    # 70 % of 50 images/s a server: 35 each.
    assert size(13, 140, 2000, FIGURES).replicas == 4
    assert size(13, 141, 2000, FIGURES).replicas == 5
    assert size(13, 1, 2000, FIGURES, least_replicas=1).replicas == 1
    many = size(1000, 35, 2000, FIGURES)
    assert most_of_a_shard(1000, many.shards) <= 13 < most_of_a_shard(1000, many.shards - 1)
    assert many.used_mib <= 1700
    assert many.servers == many.shards * 2


@pytest.mark.parametrize("categories", [1, 2, 14, 27, 500, 10_000])
def test_the_fullest_server_has_room(categories: int) -> None:
    sizes = size(categories, 10, 2000, FIGURES)
    assert most_of_a_shard(categories, sizes.shards) <= sizes.per_server
    assert sizes.used_mib <= 0.85 * 2000 + 1e-9


def test_too_small_servers_and_too_few_shards_are_refused() -> None:
    with pytest.raises(PlanError, match="A server with one category takes 500 MiB"):
        size(1, 1, 500, FIGURES)
    with pytest.raises(PlanError, match="1,000 categories on 3 shards do not go; expected"):
        size(1000, 1, 2000, FIGURES, shards=3)
    with pytest.raises(PlanError, match="expected 1 to 2"):
        size(2, 1, 2000, FIGURES, shards=3)


def test_the_figures_say_where_they_were_measured() -> None:
    for preset, figures in json.loads(MEASURED.read_text()).items():
        pages = [word.rstrip(":") for word in figures["source"].split() if word.startswith("docs/")]
        texts = "".join((ROOT / page).read_text() for page in pages)
        assert pages, preset
        for value in (figures["category_mib"], figures["images_per_s"], figures["server_mib"] or 0):
            assert f"{value}" in texts, (preset, value)
        assert any(figures["measured"] in (ROOT / page).read_text() for page in pages)


def test_the_table_and_the_json_say_the_same() -> None:
    words = ("--categories", "500", *SMALL)
    table = " ".join(ask(*words).stdout.split())
    told = json.loads(ask(*words, "--json").stdout)
    sizes = told["sizes"]
    assert f"500 categories, 100 images/s: {sizes['shards']} shards of {sizes['replicas']} servers" in table
    assert sizes["servers"] == sizes["shards"] * sizes["replicas"]
    assert "No server with a GPU was measured" in table
    assert sum(map(len, told["placement"].values())) == 500
    assert [change["name"] for change in told["changes"]][1] == "a shard more"
    assert told["moved"] is None


def test_a_plan_follows_the_one_before(tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    before.write_text(ask("--categories", "500", *SMALL, "--json").stdout)
    told = json.loads(ask("--categories", "560", *SMALL, "--previous", str(before), "--json").stdout)
    shards = json.loads(before.read_text())["sizes"]["shards"]
    assert told["moved"] <= (told["sizes"]["shards"] - shards) / shards + 0.05
    assert "move from where the plan before had them" in ask(
        *("--categories", "560", *SMALL, "--previous", str(before))
    ).stdout.replace("\n", " ")


def test_a_repositorys_categories_are_placed_by_name(tmp_path: Path) -> None:
    for name in ("nut", "nut_encoded", "pill", "pill_encoded"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text('platform: "ensemble"\n')
    told = json.loads(ask("--repository", str(tmp_path), *SMALL, "--json").stdout)
    assert told["placement"] == {"shard-1": ["nut", "pill"]}


def test_own_figures_are_taken_and_told() -> None:
    own = ("--server-mib", "1000", "--images-per-s", "3000")
    told = json.loads(ask("--categories", "5", *SMALL, *own, "--json").stdout)
    assert (told["figures"]["server_mib"], told["figures"]["images_per_s"]) == (1000, 3000)
    assert "your own --server-mib and --images-per-s" in told["figures"]["source"]


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (SMALL, "Give either --categories or --repository", 2),
        (("--categories", "0", *SMALL), "0 is not in the range", 2),
        (("--categories", "5", "--rps", "0", "--gpu-gb", "4"), "not in the range", 2),
        (("--categories", "5", "--rps", "nan", "--gpu-gb", "4"), "--rps", 2),
        (("--categories", "5", "--rps", "inf", "--gpu-gb", "4"), "--rps", 2),
        (("--categories", "5", "--rps", "1", "--gpu-gb", "0.1"), "takes 539 MiB", 1),
        (("--categories", "5", *SMALL, "--preset", "paper"), "state your own with --server-mib", 1),
        (("--categories", "5", *SMALL, "--previous", "/nowhere"), "/nowhere is no plan", 1),
    ],
)
def test_what_is_no_question_is_refused(words: Sequence[str], sentence: str, code: int) -> None:
    done = ask(*words)
    assert done.exit_code == code
    assert sentence in " ".join(done.stderr.split())
