"""The images and what starts them, held against the code: every path, port, flag, variable and file that they name."""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from client.__main__ import main as client
from deploy.__main__ import main as deploy
from deploy.containers.compose import COMPOSE, PROJECT, UNUSED, compose_variables
from deploy.server import GRACE_S, STOP_TIMEOUT_S
from deploy.serving_options import GRPC_PORT, HTTP_PORT, METRICS_PORT
from export.releases.files import CODE
from model_repository.triton_release import SERVER_IMAGE, TRITON_RELEASE
from tests.dockerfiles import read_dockerfile
from tests.products import ROOT

IMAGE, PAGE = ROOT / "deploy" / "Dockerfile", ROOT / "deploy" / "page.Dockerfile"
MONITORING = ROOT / "deploy" / "monitoring"
PYTHON = "/opt/astmfr/venv/bin/python"
SERVING_PORTS = {HTTP_PORT, GRPC_PORT, METRICS_PORT, 8003}
CONTAINER_PORTS = {"triton-cpu": SERVING_PORTS, "page": {8080}, "prometheus": {9090}, "grafana": {3000}}
# Where the client has no page, the test of its flags has nothing to hold them against.
NO_PAGE = "page" not in client.commands


def told(dockerfile: Path, name: str) -> list[str]:
    return [text for instruction, text in read_dockerfile(dockerfile) if instruction == name]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert isinstance(services, dict)
    return services


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {
        name: option for option in command.params for name in option.opts if isinstance(option, click.Option)
    }


def require_known(words: list[str], command: click.Command) -> dict[str, str]:
    """The options among the words, each one that the command has; flags have no value."""
    known, given, rest = options_of(command), {}, list(words)
    while rest:
        name = rest.pop(0)
        assert name in known, name
        given[name] = "" if known[name].is_flag else rest.pop(0)
    return given


@pytest.mark.parametrize("dockerfile", [IMAGE, PAGE], ids=lambda path: path.name)
def test_what_is_copied_is_there_and_not_ignored(dockerfile: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for text in told(dockerfile, "COPY"):
        *sources, target = text.split()
        assert target.startswith("/opt/astmfr/")
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.partition('/')[0]}" in ignored, source
    assert "*" in ignored
    # Nothing that was published, and no key, is ever in an image.
    assert "model_repository/*" in ignored
    assert {f"!model_repository/{step}" for step in CODE} <= set(ignored)


@pytest.mark.parametrize("dockerfile", [IMAGE, PAGE], ids=lambda path: path.name)
def test_the_whole_package_is_copied_and_an_extra_installed(dockerfile: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if name.isidentifier()
    }
    copied = {source for text in told(dockerfile, "COPY") for source in text.split()[:-1]}
    assert packages | {"pyproject.toml", "README.md", "constraints.txt"} <= copied
    (extra,) = re.findall(r"/opt/astmfr/source\[(\w+)\]", dockerfile.read_text())
    assert extra in project["project"]["optional-dependencies"] or (extra == "page" and NO_PAGE)


@pytest.mark.parametrize("dockerfile", [IMAGE, PAGE], ids=lambda path: path.name)
def test_nobody_is_root_and_the_base_is_an_argument(dockerfile: Path) -> None:
    assert told(dockerfile, "USER") == ["1000:1000"]
    (base,) = told(dockerfile, "ARG")
    assert told(dockerfile, "FROM") == [f"${{{base.partition('=')[0]}}}"]
    assert "ENV PYTHONDONTWRITEBYTECODE=1" in dockerfile.read_text()


def test_the_image_serves_as_deploy_serve_does() -> None:
    (command,) = told(IMAGE, "CMD")
    words = json.loads(command)
    assert words[:4] == [PYTHON, "-m", "deploy", "serve"]
    given = require_known(words[4:], deploy.commands["serve"])
    assert given["--host"] == "0.0.0.0"
    assert "--insecure" not in given  # whoever starts it says so, or gives certificates
    (exposed,) = told(IMAGE, "EXPOSE")
    assert set(map(int, exposed.split())) == SERVING_PORTS
    (health,) = told(IMAGE, "HEALTHCHECK")
    assert f"127.0.0.1:{given['--health-port']}/v2/health/ready" in health
    compile(json.loads(health.partition(" CMD ")[2])[2], "HEALTHCHECK", "exec")


def test_the_requirements_of_the_steps_are_one_list() -> None:
    listed = (ROOT / "deploy" / "triton-requirements.txt").read_text()
    assert "--requirement step-requirements.txt" in listed
    assert "/opt/astmfr/step-requirements.txt" in "".join(told(IMAGE, "RUN"))
    assert not re.search(r"^(numpy|pillow|onnxruntime|tifffile)\b", listed, re.MULTILINE)
    pins = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "deploy/step-requirements.txt").read_text(), re.MULTILINE)
    )
    constraints = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE)
    )
    assert {name: constraints[name] for name in pins} == pins


@pytest.mark.skipif(NO_PAGE, reason="there is no page yet")
def test_the_page_is_started_with_options_that_it_has(services: dict[str, Any]) -> None:
    (entry,) = told(PAGE, "ENTRYPOINT")
    words = json.loads(entry)
    assert words[:4] == [PYTHON, "-m", "client", "page"]
    command = services["page"]["command"].replace("${PAGE_CATEGORIES:?is set by make up}", "--category pill")
    given = require_known([*words[4:], *shlex.split(command)], client.commands["page"])
    assert given["--listen"] == "0.0.0.0:8080"
    assert given["--url"] == f"triton:{GRPC_PORT}"
    assert given["--data"] in {volume["target"] for volume in services["page"]["volumes"]}
    assert given["--tokens"] in {volume["target"] for volume in services["page"]["volumes"]}


@pytest.mark.parametrize("name", ["triton-cpu", "triton-gpu"])
def test_the_server_of_compose(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["command"][:4] == [PYTHON, "-m", "deploy", "serve"]
    given = require_known(service["command"][4:], deploy.commands["serve"])
    targets = {volume["target"]: volume for volume in service["volumes"]}
    assert targets[given["--repository"]]["read_only"]
    assert targets[given["--key-file"]]["read_only"]
    assert str(Path(given["--log"]).parent) in targets
    grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
    assert grace
    assert int(grace[1]) >= GRACE_S + STOP_TIMEOUT_S
    assert service["profiles"] == [name.removeprefix("triton-")]
    assert ("devices" in json.dumps(service)) == (name == "triton-gpu")
    assert service["networks"]["default"]["aliases"] == ["triton"]


def test_all_ports_are_this_machines_alone(services: dict[str, Any]) -> None:
    for name, service in services.items():
        ports = {tuple(port.split(":")) for port in service["ports"]}
        inside = CONTAINER_PORTS[name.replace("gpu", "cpu")]
        assert ports == {("127.0.0.1", str(port), str(port)) for port in inside}
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name


def test_compose_asks_for_the_variables_that_are_set(services: dict[str, Any], tmp_path: Path) -> None:
    named = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert named == set(UNUSED)
    for name in ("pill", "pill_encoded"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text('platform: "ensemble"\n')
    variables = compose_variables(tmp_path, tmp_path / "state", (1000, 1000))
    assert set(variables) == named
    assert variables["SERVER_IMAGE"] == SERVER_IMAGE
    assert variables["PAGE_CATEGORIES"] == "--category pill"
    assert services["triton-cpu"]["image"].startswith("astmfr-triton:${TRITON_RELEASE")
    assert TRITON_RELEASE not in COMPOSE.read_text()
    assert yaml.safe_load(COMPOSE.read_text())["name"] == PROJECT


def test_what_compose_mounts_of_the_checkout_is_there(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service["volumes"]:
            if volume["source"].startswith("."):
                assert (COMPOSE.parent / volume["source"]).exists(), volume["source"]
        build = service.get("build")
        if build:
            assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()
            assert (COMPOSE.parent / build["context"]).resolve() == ROOT


def test_prometheus_and_grafana_find_what_they_read(services: dict[str, Any]) -> None:
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    asked = {
        target
        for job in configuration["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    }
    assert asked == {f"triton:{METRICS_PORT}", "triton:8003"}
    mounted = {volume["target"]: volume["source"] for volume in services["prometheus"]["volumes"]}
    (rules,) = configuration["rule_files"]
    assert str(Path(rules).parent) in mounted
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    assert "/etc/prometheus/prometheus.yml" in mounted
    mounted = {volume["target"]: volume["source"] for volume in services["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/astmfr.yaml").read_text())[
        "providers"
    ]
    assert mounted[provider["options"]["path"]] == "./monitoring/dashboards"
    (source,) = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"


def test_compose_files_schema_is_kept() -> None:
    """The schema that Docker publishes with its specification, as check-jsonschema carries it."""
    pytest.importorskip("check_jsonschema", reason="the schema comes with check-jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    path = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    compose = yaml.safe_load(COMPOSE.read_text())
    jsonschema.validate(compose, schema)
    compose["services"]["page"]["shm"] = "1g"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema)
