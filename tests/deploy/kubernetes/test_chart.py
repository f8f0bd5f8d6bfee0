"""The Helm chart: what it makes of values, and what it refuses."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from deploy.__main__ import serve
from deploy.server import STOP_TIMEOUT_S
from deploy.supervision.health import LIVE_S
from model_repository.category_names import OWN_MODELS, SHARED_MODELS
from tests.deploy.kubernetes.rendering import CHART, EXAMPLES, Manifest, example, of_kind, render
from tests.products import ROOT

KUBERNETES = ("1.27", "1.37")
WITHOUT_SCHEMA = {"InferenceService", "PrometheusRule", "ServiceMonitor"}  # of operators, not of Kubernetes


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    return {path.stem: render(yaml.safe_load(path.read_text())) for path in EXAMPLES}


def pod(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def selects(service: Manifest, deployment: Manifest) -> bool:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    return service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    ("name", "shards", "categories"),
    [("categories-1", 1, 1), ("categories-15", 3, 15), ("categories-500", 16, 500)],
)
def test_each_category_has_a_service_that_leads_to_its_shards(
    rendered: dict[str, list[Manifest]], name: str, shards: int, categories: int
) -> None:
    manifests = rendered[name]
    values = yaml.safe_load((CHART.parent / "examples" / f"{name}.yaml").read_text())
    deployments = of_kind(manifests, "Deployment")
    assert len(deployments) == shards
    services = {
        manifest["metadata"]["annotations"]["astmfr/category"]: manifest
        for manifest in of_kind(manifests, "Service").values()
        if "annotations" in manifest["metadata"]
    }
    assert len(services) == categories
    # Every service of the smaller ones, a few of the largest.
    for category in [*services][:: max(1, categories // 20)]:
        expected = {f"line-{shard['name']}" for shard in values["shards"] if category in shard["categories"]}
        found = {each for each, deployment in deployments.items() if selects(services[category], deployment)}
        assert found == expected, category
        assert services[category]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_kubernetes_takes_what_is_rendered(rendered: dict[str, list[Manifest]], name: str) -> None:
    seen: dict[str, int] = {}
    for manifest in rendered[name]:
        seen[manifest["kind"]] = seen.get(manifest["kind"], 0) + 1
        if manifest["kind"] in WITHOUT_SCHEMA or seen[manifest["kind"]] > 3:  # the next differ by names
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)
    identities = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered[name]]
    assert len(set(identities)) == len(identities)


def test_helm_finds_no_fault_in_the_chart() -> None:
    report = helm_python.lint(CHART, example(15), strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_serve_knows_every_argument(rendered: dict[str, list[Manifest]]) -> None:
    for name in ("categories-15", "categories-500"):  # with certificates and key, and without
        for deployment in of_kind(rendered[name], "Deployment").values():
            (container,) = pod(deployment)["containers"]
            serve.make_context("serve", list(container["args"]))  # or a UsageError
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            for path in re.findall(r"=(/\S+)", " ".join(container["args"])):
                assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


def test_a_pod_runs_what_the_image_runs(rendered: dict[str, list[Manifest]]) -> None:
    image = (ROOT / "deploy" / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", image, re.MULTILINE)
    words = json.loads(command)
    (deployment,) = of_kind(rendered["categories-1"], "Deployment").values()
    (container,) = pod(deployment)["containers"]
    assert container["command"] == words[:4]
    stated = {f"{option}={value}" for option, value in zip(words[4::2], words[5::2], strict=True)}
    assert stated <= set(container["args"])
    assert f"USER {pod(deployment)['securityContext']['runAsUser']}:" in image
    exposed = set(map(int, re.findall(r"\d+", re.findall(r"^EXPOSE (.*)$", image, re.MULTILINE)[0])))
    assert {port["containerPort"] for port in container["ports"]} < exposed


def test_a_pod_is_probed_where_dead_steps_are_seen_and_has_time_to_end() -> None:
    values = example(1, graceSeconds=120, preStopSeconds=15, timeoutSeconds=900)
    (deployment,) = of_kind(render(values), "Deployment").values()
    spec = pod(deployment)
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] > 15 + 120 + STOP_TIMEOUT_S
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "15"]
    health = next(port["containerPort"] for port in container["ports"] if port["name"] == "health")
    assert f"--health-port={health}" in container["args"]
    patience = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v2/health/ready", "port": "health"}
        patience[probe] = container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
    assert patience["startupProbe"] > 900
    assert patience["readinessProbe"] <= 5
    # A pod whose supervisor still tries is left alone.
    assert patience["livenessProbe"] > 900
    (quick,) = of_kind(render(example(1)), "Deployment").values()
    probe = pod(quick)["containers"][0]["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > LIVE_S


def test_a_pod_may_do_little(rendered: dict[str, list[Manifest]]) -> None:
    for name, manifests in rendered.items():
        for deployment in of_kind(manifests, "Deployment").values():
            spec = pod(deployment)
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["automountServiceAccountToken"] is False
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }, name
            shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
            assert shm["emptyDir"]["medium"] == "Memory"
            assert shm["emptyDir"]["sizeLimit"]


def test_gpus_and_secrets_reach_the_pod(rendered: dict[str, list[Manifest]]) -> None:
    spec = pod(of_kind(rendered["categories-15"], "Deployment")["line-objects"])
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": 1}
    secrets = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    assert secrets == {"astmfr-tls", "astmfr-clients", "astmfr-admin"}
    # `serve` takes a private key that its owner alone reads, and a Secret's files belong to root.
    keys = next(container for container in spec["initContainers"] if container["name"] == "keys")
    assert "chmod 600" in keys["args"][0]
    assert not of_kind(rendered["categories-15"], "Secret")


def test_a_shard_copies_the_models_of_its_categories_and_the_shared_ones(
    rendered: dict[str, list[Manifest]],
) -> None:
    spec = pod(of_kind(rendered["categories-15"], "Deployment")["line-textures"])
    sync = next(container for container in spec["initContainers"] if container["name"] == "sync")
    filters = [argument.removeprefix("--filter=") for argument in sync["args"] if "--filter" in argument]
    assert filters[-1] == "- *"
    assert {f"+ /{model}*/**" for model in SHARED_MODELS} < set(filters)
    # The aligner of another size than the paper's carries it in its name.
    assert {f"+ /carpet{ending}/**" for ending in ("", "_alignment_*", *OWN_MODELS)} < set(filters)
    assert not any("pill" in rule for rule in filters)
    assert "store:line-models/production" in sync["args"]


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ("preferred", "preferredDuringSchedulingIgnoredDuringExecution"),
        ("required", "requiredDuringSchedulingIgnoredDuringExecution"),
        ("none", None),
    ],
)
def test_replicas_of_a_shard_lie_on_different_nodes(asked: str, rule: str | None) -> None:
    (deployment,) = of_kind(render(example(1, antiAffinity=asked)), "Deployment").values()
    if rule is None:
        assert "affinity" not in pod(deployment)
        return
    (term,) = pod(deployment)["affinity"]["podAntiAffinity"][rule]
    term = term.get("podAffinityTerm", term)
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"] == deployment["spec"]["selector"]


def test_a_drain_takes_one_pod_of_a_shard_at_a_time(rendered: dict[str, list[Manifest]]) -> None:
    budgets = of_kind(rendered["categories-15"], "PodDisruptionBudget")
    deployments = of_kind(rendered["categories-15"], "Deployment")
    assert budgets.keys() == deployments.keys()
    for name, budget in budgets.items():
        assert budget["spec"] == {"maxUnavailable": 1, "selector": deployments[name]["spec"]["selector"]}


def test_prometheus_finds_every_pod_under_the_job_that_the_alerts_name(
    rendered: dict[str, list[Manifest]],
) -> None:
    manifests = rendered["categories-15"]
    (monitor,) = of_kind(manifests, "ServiceMonitor").values()
    services = of_kind(manifests, "Service").values()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = (each for each in services if wanted.items() <= each["metadata"]["labels"].items())
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "astmfr"
    assert all(selects(service, each) for each in of_kind(manifests, "Deployment").values())
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == ports.keys()
    (policy,) = of_kind(manifests, "NetworkPolicy").values()
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == {8001, *ports.values()}
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_an_autoscaler_follows_the_metric_that_the_adapter_makes(rendered: dict[str, list[Manifest]]) -> None:
    adapter = yaml.safe_load((CHART.parent / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    scalers = of_kind(rendered["categories-500"], "HorizontalPodAutoscaler")
    assert len(scalers) == 16
    for name, scaler in scalers.items():
        (metric,) = scaler["spec"]["metrics"]
        assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
        assert metric["pods"]["target"]["averageValue"] == "30"
        assert "replicas" not in of_kind(rendered["categories-500"], "Deployment")[name]["spec"]


def test_kserve_gets_the_same_pods() -> None:
    manifests = render(example(15, kserve={"enabled": True}))
    assert not of_kind(manifests, "Deployment")
    assert not of_kind(manifests, "HorizontalPodAutoscaler")
    services = of_kind(manifests, "InferenceService")
    plain = of_kind(render(example(15)), "Deployment")
    assert services.keys() == plain.keys()
    predictor = services["line-small"]["spec"]["predictor"]
    template = plain["line-small"]["spec"]["template"]
    assert predictor["labels"] == template["metadata"]["labels"]
    (container,) = predictor["containers"]
    assert container | {"name": "astmfr"} == template["spec"]["containers"][0]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 4)
    # What KServe adds to a pod's fields; the rest is Kubernetes' own schema.
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "labels", "annotations"}
    spec = {name: value for name, value in predictor.items() if name not in own}
    as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    kubernetes_validate.validate(as_pod, KUBERNETES[-1], strict=True)


def test_clients_outside_of_the_cluster_get_an_address() -> None:
    clients = [{"ipBlock": {"cidr": "10.2.0.0/16"}}]
    policy = {"enabled": True, "clients": clients}
    manifests = render(example(1, service={"type": "LoadBalancer"}, networkPolicy=policy))
    service = of_kind(manifests, "Service")["line-pill"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert "clusterIP" not in service["spec"]
    (allowed,) = of_kind(manifests, "NetworkPolicy").values()
    assert allowed["spec"]["ingress"][0] == {"from": clients, "ports": [{"protocol": "TCP", "port": 8001}]}
    assert allowed["spec"]["egress"] == []


PILL = {"name": "a", "categories": ["pill"]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"replicaz": 3}, "additional properties 'replicaz' not allowed"),
        ({"shards": [PILL | {"replica": 3}]}, r"'/shards/0': additional properties 'replica' not allowed"),
        ({"tls": {"key": "-----BEGIN"}}, r"'/tls': additional properties 'key' not allowed"),
        (
            {"shards": []},
            "shards is empty; give at least one, with a name and the categories that it serves.",
        ),
        *(
            (
                {"shards": [PILL, {"name": "b"} | none]},
                "Shard b has no categories, .*; list those that it serves, or",
            )
            for none in ({}, {"categories": []}, {"categories": None})
        ),
        ({"shard": {"gpus": "two"}}, "'/shard/gpus': got string, want integer"),
        (
            {"shard": {"resources": {"limits": {"memroy": "4Gi"}}}},
            "'/shard/resources/limits': additional properties 'memroy' not allowed",
        ),
        (
            {"shard": {"replicas": 8, "autoscaling": {"enabled": True, "maxReplicas": 6}}},
            "Shard a begins with 8 replicas, and its autoscaling.maxReplicas is 6; raise that,",
        ),
        (
            {"shard": {"replicas": 0, "autoscaling": {"enabled": True}}},
            "a has 0 replicas, and its autoscaler keeps at least 1; set",
        ),
        (
            {"shards": [PILL | {"replicas": 0}], "kserve": {"enabled": True}},
            "a has 0 replicas, and KServe keeps at least 1; set",
        ),
        (
            {"shards": [PILL, {"name": "b", "categories": ["pill"]}]},
            "pill is in the shards a and b; take it out",
        ),
        ({"shards": [PILL, {"name": "a", "categories": ["nut"]}]}, "Two shards are called a;"),
        (
            {"shards": [{"name": "a", "categories": ["metal_nut", "Metal.Nut"]}]},
            "Metal.Nut would have the Service line-metal-nut, which is that of metal_nut;",
        ),
        (
            {"shards": [{"name": "a", "categories": ["p" * 60]}]},
            "would have 65 characters, and Kubernetes takes 63",
        ),
        ({"sharedCategories": ["nut"]}, "nut of sharedCategories is in no shard;"),
        ({"tls": {"secret": ""}}, "tls.secret is empty, and the network could read"),
        ({"insecure": True}, "tls.secret and insecure contradict each other"),
        ({"repository": {}}, "The repository comes from nowhere; give exactly one of repository.pvc,"),
        ({"repository": {"pvc": {"claim": "m"}, "s3": {"url": "s3://m"}}}, "comes from pvc and s3;"),
        ({"repository": {"pvc": {"claim": "m", "path": "../x"}}}, r"pvc.path is \.\./x; give a folder"),
        ({"repository": {"pvc": {"claim": "m", "path": "./a"}}}, r"pvc.path is \./a; give a folder"),
        ({"repository": {"pvc": {"claim": "m", "path": "/a"}}}, r"pvc.path is /a; give a folder"),
        ({"image": {"repository": "r"}}, "image.tag and image.digest are empty;"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        render(example(1, **changed))


def test_a_category_may_stand_in_two_shards_where_that_is_said() -> None:
    shards = [PILL, {"name": "b", "categories": ["pill"]}]
    manifests = render(example(1, shards=shards, sharedCategories=["pill"]))
    service = of_kind(manifests, "Service")["line-pill"]
    assert all(selects(service, each) for each in of_kind(manifests, "Deployment").values())


@pytest.mark.parametrize(
    ("other", "own", "refused"),
    [
        ({}, {}, True),
        ({}, {"shared": True}, False),
        ({"path": "line"}, {"path": "line/"}, True),
        ({"path": "plant/line"}, {"path": "plant//line"}, True),
        ({"path": "line"}, {"path": "lab"}, False),  # another folder of it
        ({"claim": "others"}, {}, False),
    ],
)
def test_two_releases_on_one_claim_are_told(
    tmp_path: Path, other: dict[str, Any], own: dict[str, Any], refused: bool
) -> None:
    """What the cluster answers is read from a file here; the rest of the check is the chart's."""
    chart = tmp_path / "astmfr"
    shutil.copytree(CHART, chart)
    there = example(1, repository={"pvc": {"claim": "models"} | other})
    (deployment,) = of_kind(render(there, release="first"), "Deployment").values()
    others = copy.deepcopy(deployment)  # on the same claim, and none of this chart
    others["metadata"] |= {"name": "backup", "labels": {"app.kubernetes.io/instance": "backup"}}
    (chart / "files" / "cluster.yaml").write_text(yaml.safe_dump({"items": [others, deployment]}))
    checks = chart / "templates" / "_checks.tpl"
    asked = '(lookup "apps/v1" "Deployment" .Release.Namespace "")'
    assert asked in checks.read_text()
    checks.write_text(checks.read_text().replace(asked, '(.Files.Get "files/cluster.yaml" | fromYaml)'))
    render(there, chart=chart, release="first")  # its own Deployment is no other's
    values = example(1, repository={"pvc": {"claim": "models"} | own})
    if not refused:
        render(values, chart=chart, release="second")
        return
    folder = f" at {own['path']}" if own else ""
    said = f"The claim models{folder} is mounted by Deployment first-a of release first already; give this release a"
    with pytest.raises(helm_python.HelmError, match=said):
        render(values, chart=chart, release="second")


def test_whoever_serves_from_a_claim_cannot_change_it() -> None:
    """So that two that share one leave it to those who publish, whose lock lies in it."""
    (deployment,) = of_kind(render(example(1)), "Deployment").values()
    spec = pod(deployment)
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "repository")
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert "initContainers" not in spec or all(
        mount["name"] != "repository"
        for container in spec["initContainers"]
        for mount in container["volumeMounts"]
    )
    (container,) = spec["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "repository")
    assert mount["readOnly"] is True
