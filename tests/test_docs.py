"""What README, CHANGELOG and docs/ name exists: links, headings, commands, options, files. Their programs run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploy.server import TritonServer
from tests.documents import (
    CHANGELOG,
    DOCS,
    README,
    anchors,
    code_blocks,
    inline_code,
    links,
    name,
    run_program,
    shell_commands,
)
from tests.products import ROOT, Product

pytest_plugins = ["tests.serving"]

PAGES = [README, *DOCS]  # the changelog also names what is gone
GROUPS = {
    stage: importlib.import_module(f"{stage}.__main__").main
    for stage in ("train", "export", "deploy", "client")
}
REPOSITORY_PATH = re.compile(r"(train|export|client|deploy|model_repository|tests|docs|\.ci)/[\w./-]*")
DATA_FOLDERS = ("train/good",)  # of a data set, not of the repository
OTHERS_OPTIONS = ("--rate-limit",)  # tritonserver's
UNLISTED = {"cli", "support", "config"}  # chapters that the figure of the architecture goes without
SOURCES = ("train", "export", "client", "deploy", "model_repository", "tests")


def subcommands(word: str) -> list[click.Command]:
    """The commands of this name in any group; `bench` is one of two."""
    return [group.commands[word] for group in GROUPS.values() if word in group.commands]


def options(command: click.Command) -> dict[str, click.Parameter]:
    return {option: each for each in command.params for option in (*each.opts, *each.secondary_opts)}


def unknown_options(words: list[str], commands: list[click.Command]) -> list[str]:
    """Options, and values of options with choices, that none of the commands has."""
    faults = []
    for position, word in enumerate(words):
        if not word.startswith("--") or word == "--help":
            continue
        option, _, given = word.partition("=")
        value = given or next(iter(words[position + 1 :]), "")
        known = [options(command)[option] for command in commands if option in options(command)]
        if not known:
            faults.append(option)
        elif not any(accepts(each, value) for each in known):
            faults.append(f"{option} {value}")
    return faults


def accepts(parameter: click.Parameter, value: str) -> bool:
    return not isinstance(parameter.type, click.Choice) or not value or value in parameter.type.choices


def stage_commands(page: Path) -> Iterator[list[str]]:
    """`STAGE SUBCOMMAND OPTION...` wherever the page says `python -m STAGE ...`, `astmfr-STAGE ...` or `STAGE ...`."""
    for words in (*shell_commands(page), *(code.split() for code in inline_code(page))):
        if words[:2] == ["python", "-m"] and words[2] in GROUPS:
            yield words[2:]
        elif words[0].removeprefix("astmfr-") in GROUPS and (words[1:] or words[0].startswith("astmfr-")):
            yield [words[0].removeprefix("astmfr-"), *words[1:]]


def make_commands() -> list[tuple[str, ...]]:
    named = (
        words
        for page in PAGES
        for words in (*shell_commands(page), *(code.split() for code in inline_code(page)))
        if words[0] == "make"
    )
    return sorted({tuple(words) for words in named if "WHAT=..." not in words})


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_and_picture_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        waiting += [target for target in targets - reached if target.suffix == ".md"]
        reached |= targets
    existing = {path for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert existing - reached == set()


@pytest.mark.parametrize("command", make_commands(), ids=" ".join)
def test_make_knows_the_target_and_reads_every_variable(command: tuple[str, ...]) -> None:
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    makefile = (ROOT / "Makefile").read_text()
    for variable in (word.partition("=")[0] for word in command[1:] if "=" in word):
        assert re.search(rf"\$(\({variable}\)|\${variable}\b)", makefile), variable
    # An unknown benchmark is refused by its recipe, which a dry run only prints.
    if "bench-all" in command:
        assert re.search(r" -m (tests\.benchmarks|export bench)", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shell_blocks_hold_commands_of_known_kinds(page: Path) -> None:
    for words in shell_commands(page):
        is_module = words[:2] == ["python", "-m"] and importlib.util.find_spec(words[2]) is not None
        assert words[0] == "make" or is_module, " ".join(words)


def test_commands_are_found_in_the_pages() -> None:
    assert len(shell_commands(README)) >= 6
    assert len({stage for page in PAGES for stage, *_ in stage_commands(page)}) == len(GROUPS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_subcommands_and_their_options_exist(page: Path) -> None:
    for stage, *words in stage_commands(page):
        if not words or words[0].startswith("--"):
            assert unknown_options(words, [GROUPS[stage]]) == []
            continue
        assert words[0] in GROUPS[stage].commands, f"{stage} {words[0]}"
        assert unknown_options(words[1:], [GROUPS[stage].commands[words[0]]]) == [], f"{stage} {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_named_alone_exist(page: Path) -> None:
    every = [command for group in GROUPS.values() for command in group.commands.values()]
    for words in (code.split() for code in inline_code(page)):
        if words[0].partition("=")[0] in OTHERS_OPTIONS:
            continue
        if words[0].startswith("--"):
            assert unknown_options(words, every) == []
        elif named := subcommands(words[0]):
            assert unknown_options(words[1:], named) == []


def test_console_scripts_exist() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    named = {code for page in PAGES for code in inline_code(page) if re.fullmatch(r"astmfr-\w+", code)}
    assert named == set(scripts)
    for entry in scripts.values():
        module, _, function = entry.partition(":")
        assert isinstance(getattr(importlib.import_module(module), function), click.Group)


@pytest.mark.parametrize("stage", GROUPS)
def test_the_list_of_commands_is_complete(stage: str) -> None:
    text = (ROOT / "docs/guides/README.md").read_text()
    (listed,) = re.findall(rf"^python -m {stage} --help +# (.*)$", text, re.MULTILINE)
    assert sorted(listed.split(", ")) == sorted(GROUPS[stage].commands)


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name)
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    assert re.findall(r"@[A-Z][A-Z0-9_]*@|\b(?:TODO|TBD|FIXME|XXX)\b", page.read_text()) == []


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name)
def test_files_in_backticks_exist(page: Path) -> None:
    for code in inline_code(page):
        if REPOSITORY_PATH.fullmatch(code) and not code.startswith(DATA_FOLDERS):
            assert (ROOT / code).exists(), code


def test_the_readme_lists_chapters_that_exist() -> None:
    (layout,) = (block for block in code_blocks(README, "text") if block.startswith("train/"))
    folders = dict(re.findall(r"^(\w+/) +(.*)$", layout, re.MULTILINE))
    assert all((ROOT / folder).is_dir() for folder in folders)
    for stage in ("train/", "export/", "client/"):
        for chapter in folders[stage].partition(";")[0].split(", "):
            path = ROOT / stage / chapter
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{stage}{chapter}"


@pytest.mark.parametrize("stage", ["train", "export", "client"])
def test_the_architecture_lists_chapters_as_the_contracts_do(stage: str) -> None:
    (figure,) = (block for block in code_blocks(ROOT / "docs/architecture.md", "text") if "client" in block)
    (listed,) = re.findall(rf"^[ |]*{stage}  +(\w+ (?:\s*> [\w, ]+)+)$", figure, re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [stage])
    order = {chapter: -place for place, layer in enumerate(layers) for chapter in layer.split(" | ")}
    groups = [group.split(",") for group in listed.split(">")]
    places = [{order[chapter.strip()] for chapter in group} for group in groups]
    assert [len(place) for place in places] == [1] * len(places)
    assert sorted(places, key=min) == places
    folders = {path.parent.name for path in (ROOT / stage).glob("*/__init__.py")}
    assert {chapter.strip() for group in groups for chapter in group} >= folders - UNLISTED


def test_pages_and_targets_that_the_code_names_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    for path in (*files, ROOT / "Makefile", ROOT / "pyproject.toml"):
        text = path.read_text()
        for page in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", text):
            assert (ROOT / page).is_file(), f"{name(path)} names {page}"
        for target in re.findall(r"`make ([a-z][a-z-]*)", text):
            assert target in targets, f"{name(path)} names make {target}"


@pytest.mark.parametrize("page", [page for page in DOCS if page.parent.name == "measurements"], ids=name)
def test_a_measurement_says_when_and_how(page: Path) -> None:
    if page.name == "README.md":
        return
    _, _, text = page.read_text().partition("\n\n")
    assert re.match(r"20\d\d-\d\d-\d\d", text)
    assert list(stage_commands(page)) or "`make " in text or "by hand" in text


@pytest.mark.triton
@pytest.mark.parametrize("page", [page for page in DOCS if code_blocks(page, "python")], ids=name)
def test_programs_run(page: Path, server: TritonServer, edge: Product, tmp_path: Path) -> None:
    shutil.copyfile(edge.data.test[0].path, tmp_path / "part.png")
    for program in code_blocks(page, "python"):
        assert run_program(program, server, edge, folder=tmp_path)
