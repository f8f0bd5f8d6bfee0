"""Teacher and student alone in PyTorch: float16, channels_last, BatchNorm folded, a CUDA graph; then compiled too."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model_repository.image_size import height_width
from tests.benchmarks.gpu_check.work import Asked, Results, rate, tell_memory, wait_for
from train.fitting.masked_loss import compiler_fault
from train.method.backbones import Backbone
from train.method.student import Student, build_teacher_and_student

BATCHES = (1, 8, 16, 32, 64, 128, 256)
COMPILED_BATCHES = (1, 64)  # each is compiled anew
TINY_BATCHES = (1, 2)
LATENCIES = 300


class Pair(nn.Module):
    """Images [B, S, S, 3] uint8 to distance maps [B, h, h] float32 a stage: what the server's two backbones do.

    Args:
        teacher, student: in evaluation mode.
        scale: of the cosine distance.
        dtype: that the networks compute in; features are compared in float32.
    """

    def __init__(self, teacher: Backbone, student: Student, *, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.teacher, self.student, self.scale, self.dtype = teacher, student, scale, dtype
        for networks in (teacher.body, student.backbone.body, student.generation_blocks):
            networks.to(dtype)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Distance maps at stages 1 to 3."""
        pixels = image.permute(0, 3, 1, 2).float()  # [B, 3, S, S], channels_last in memory
        teacher, backbone = self.teacher, self.student.backbone
        theirs = teacher.body(((pixels - teacher.mean) / teacher.std).to(self.dtype))
        ours = backbone.body(((pixels - backbone.mean) / backbone.std).to(self.dtype))
        regenerated = self.student.regenerate(ours)
        in_float32 = [[feature.float() for feature in features] for features in (regenerated, theirs)]
        return tuple(self.student.compare(*in_float32, scale=self.scale))


def build_pair(asked: Asked, *, dtype: torch.dtype, fold: bool = True) -> tuple[Pair, dict[str, Any]]:
    """The `paper` preset's pair on the device, and what is known of it: GFLOP an image, whether BatchNorm is folded."""
    config = asked.config("paper")
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    plain = Pair(teacher, student.eval(), scale=config.distance_scale, dtype=torch.float32)
    image = torch.randint(0, 256, (1, *height_width(config.image_size), 3), dtype=torch.uint8)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        expected = plain(image)
    folded = copy.deepcopy(plain)
    fold_batchnorm(folded)
    with torch.inference_mode():
        same = all(
            torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3)
            for ours, theirs in zip(folded(image), expected, strict=True)
        )
    chosen = folded if fold and same else plain
    pair = Pair(chosen.teacher, chosen.student, scale=config.distance_scale, dtype=dtype)
    pair.to(asked.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    facts = {
        "gflop_an_image": counter.get_total_flops() / 1e9,
        "batchnorm_folded": fold and same,
        "image_size": config.image_size,
    }
    return pair.eval(), facts


def fold_batchnorm(module: nn.Module) -> None:
    """Put every BatchNorm that directly follows a convolution among a module's children into that convolution."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            if before.out_channels == child.num_features:
                _fold(before, child)
                # timm's BatchNormAct2d holds the activation that follows.
                setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batchnorm(child)
        before = child


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias.detach() - norm.running_mean * gain
    if convolution.bias is not None:
        shift = shift + convolution.bias.detach() * gain
    convolution.weight = nn.Parameter(
        convolution.weight.detach() * gain.view(-1, 1, 1, 1), requires_grad=False
    )
    convolution.bias = nn.Parameter(shift, requires_grad=False)


def as_graph(module: Callable[[Tensor], Any], image: Tensor) -> tuple[Callable[[], object], Any]:
    """What runs a module over `image`, as one CUDA graph on a GPU; and its outputs, which each run overwrites there."""
    if image.device.type != "cuda":
        return (lambda: module(image)), module(image)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            module(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = module(image)
    return graph.replay, outputs


@torch.inference_mode()
def measure_module(
    module: Callable[[Tensor], Any], asked: Asked, results: Results, *, size: int, batches: Sequence[int]
) -> None:
    """Images/s of each batch, p50 and p99 of one image with its way to the card and back; written one by one."""
    device, by_batch, fits = asked.torch_device, {}, 0
    for batch in batches:
        try:
            image = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).to(device)
            replay, outputs = as_graph(module, image)
            by_batch[batch] = batch * rate(replay, device=device, seconds=0.05 if asked.tiny else 1.0)
        except torch.OutOfMemoryError:
            tell_memory(results, "teacher and student", batch=batch, fits=fits)
            break
        fits = batch
        if batch == 1:
            results.put(**latency(replay, image, outputs, runs=10 if asked.tiny else LATENCIES))
            results.put(finite=all(bool(torch.isfinite(output).all()) for output in outputs))
        best = max(by_batch, key=lambda size: by_batch[size])
        results.put(images_per_s=by_batch, best_batch=best, best_images_per_s=by_batch[best])


def latency(replay: Callable[[], object], image: Tensor, outputs: Any, *, runs: int) -> dict[str, float]:
    """Milliseconds from pixels in the host's memory to distance maps there, of `runs` runs after as many to warm up."""
    on_gpu = image.is_cuda
    pixels = image.cpu().pin_memory() if on_gpu else image.clone()
    maps = [torch.empty(output.shape, dtype=output.dtype, pin_memory=on_gpu) for output in outputs]
    taken_ms = []
    for _ in range(2 * runs):
        started = perf_counter()
        image.copy_(pixels, non_blocking=True)
        replay()
        for there, here in zip(outputs, maps, strict=True):
            here.copy_(there, non_blocking=True)
        wait_for(image.device)
        taken_ms.append(1000 * (perf_counter() - started))
    taken_ms = sorted(taken_ms[runs:])
    return {"p50_ms": statistics.median(taken_ms), "p99_ms": taken_ms[int(0.99 * (runs - 1))]}


def measure(asked: Asked, results: Results, *, compiled: bool = False) -> None:
    """The pair as it is, or compiled by torch first."""
    torch.backends.cudnn.benchmark = True
    dtype = torch.float32 if asked.device == "cpu" else torch.float16
    # The compiler folds nothing, so it is given what is folded.
    pair, facts = build_pair(asked, dtype=dtype)
    results.put(**facts, dtype=str(dtype).removeprefix("torch."), cuda_graph=asked.device == "cuda")
    batches = TINY_BATCHES if asked.tiny else COMPILED_BATCHES if compiled else BATCHES
    module: Callable[[Tensor], Any] = pair
    if compiled:
        if asked.device == "cpu":
            results.put(note="Compiled on a GPU alone: it takes minutes on a CPU.")
            return
        if fault := compiler_fault(asked.torch_device):
            results.put(note=f"Not compiled: {fault}.")
            return
        module = torch.compile(pair, dynamic=False)
    started = perf_counter()
    measure_module(module, asked, results, size=facts["image_size"], batches=batches)
    results.put(seconds=perf_counter() - started)
