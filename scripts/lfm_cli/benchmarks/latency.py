"""Time from observation to chunk at batch 1: chains and students of the paper's size for Lift beside Diffusion Policy.

All have random weights of the real shapes: latency does not depend on them. Diffusion Policy's network is written
plainly (`plain_unet1d`), in torch and in the same process, sampled by diffusers' schedulers.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lfm_cli.benchmarks import Ratio, Settings, Skipped
from lfm_envs.tasks import TASKS
from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import Schedule, Solver
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, PolicySpec
from lfm_policy.networks.grow import grown
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.training.distillation.students import merged

Side = Callable[[], object]
Times = Mapping[str, np.ndarray]
"""For each side, the milliseconds of each call."""

NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [128, 256, 512], "time_dim": 128}
PLAIN = NETWORK | {"_target_": "_benchmarks.plain_unet1d.PlainUnet1d"}
DIFFUSION = PLAIN | {"dims": [256, 512, 1024], "time_dim": 256}
TEACHER = Schedule.geometric(4, 0.15, 1.25)


def measure(settings: Settings) -> Iterator[Ratio | Skipped]:
    """Yield ratios against DDIM-16 and DDPM-100, the policy's own overhead, and onnxruntime against torch."""
    torch.set_num_threads(settings.threads)
    chains = {
        "teacher": _policy(TEACHER, NETWORK),
        "student2": _policy(merged(TEACHER, 2), _grown(2)),
        "student1": _policy(merged(TEACHER, 1), NETWORK),
        "student1_grown": _policy(merged(TEACHER, 1), _grown(4)),
    }
    with tempfile.TemporaryDirectory() as folder:
        graphs = {name: _graph(chain, Path(folder) / name, settings.threads) for name, chain in chains.items()}
        sides = {f"{name}_torch": _call(chain) for name, chain in chains.items()}
        sides |= {f"{name}_onnx": _call(graph) for name, graph in graphs.items()}
        sides |= {"ddim16": _call(_diffusion("ddim", 16)), "bare": _bare(chains["teacher"])}
        sides |= {"plain": _bare(_policy(TEACHER, PLAIN)), "teacher_bf16": _call(_narrow(TEACHER))}
        times = _take_turns(sides, settings.repeats, settings.seconds)
        slow = {"ddpm100": _call(_diffusion("ddpm", 100)), "teacher_torch": sides["teacher_torch"]}
        slow["teacher_onnx"] = sides["teacher_onnx"]
        against_ddpm = _take_turns(slow, max(1, settings.repeats // 2), settings.seconds)
    yield _ratio("teacher_vs_ddim16", times, "teacher_onnx", "ddim16", 20, "teacher, 4 × 16.6 M, onnxruntime")
    yield _ratio("teacher_torch_vs_ddim16", times, "teacher_torch", "ddim16", None, "the same in torch")
    yield _ratio("teacher_vs_ddpm100", against_ddpm, "teacher_onnx", "ddpm100", 130, "teacher, onnxruntime")
    yield _ratio("teacher_torch_vs_ddpm100", against_ddpm, "teacher_torch", "ddpm100", None, "the same in torch")
    yield _ratio("student2_vs_ddim16", times, "student2_onnx", "ddim16", None, "2 × 33 M, onnxruntime")
    yield _ratio("student1_vs_ddim16", times, "student1_onnx", "ddim16", 40, "1 × 16.6 M, onnxruntime")
    yield _ratio("student1_torch_vs_ddim16", times, "student1_torch", "ddim16", None, "the same in torch")
    yield _ratio("student1_grown_vs_ddim16", times, "student1_grown_onnx", "ddim16", None, "1 × 66 M, onnxruntime")
    yield _ratio("onnx_vs_torch", times, "teacher_onnx", "teacher_torch", None, "teacher, the same weights")
    yield _ratio("bf16_vs_fp32", times, "teacher_bf16", "teacher_torch", 1.6, "teacher in torch, precision=bfloat16")
    yield _ratio("teacher_bf16_vs_ddim16", times, "teacher_bf16", "ddim16", 25, "the same")
    plainly = "policy call against four bare forwards of the same networks written plainly"
    yield _ratio("teacher_vs_plain", times, "teacher_onnx", "plain", 1.5, f"teacher, onnxruntime; {plainly}")
    yield _ratio("teacher_torch_vs_plain", times, "teacher_torch", "plain", 1.5, f"the same in torch; {plainly}")
    yield _ratio("overhead", times, "teacher_torch", "bare", 0.95, "policy call against its four bare network forwards")


def _policy(schedule: Schedule, network: Mapping[str, object], **options: Any) -> LFMPolicy:
    torch.manual_seed(0)
    contract = TASKS["lift"].contract
    spec = PolicySpec(chain=ChainSpec(gammas=schedule.gammas, network=dict(network), **options))
    identities = (AffineNormalizer.identity(dim) for dim in (contract.observation_dim, contract.action_dim))
    return LFMPolicy(spec, Encoding(contract, *identities)).eval()


def _narrow(schedule: Schedule) -> LFMPolicy:
    policy = _policy(schedule, NETWORK)
    policy.narrow()
    return policy


def _grown(times: int) -> dict[str, object]:
    return grown(NETWORK, _policy(Schedule(()), NETWORK).chain.blocks[0], times)


def _diffusion(sampler: str, steps: int) -> LFMPolicy:
    return _policy(Schedule(()), DIFFUSION, objective=sampler, solver=Solver(steps=steps))


def _graph(policy: LFMPolicy, out: Path, threads: int) -> OnnxPolicy:
    export(policy, out, samples=2)
    return OnnxPolicy(out, threads=threads)


def _call(policy: ChunkPolicy) -> Side:
    """Return a call for one chunk from one observation history."""
    generator = np.random.default_rng(0)
    history = (1, policy.observation_steps, policy.contract.observation_dim)
    histories = generator.standard_normal(history).astype(np.float32)
    noise = generator.standard_normal((1, *policy.noise_shape)).astype(np.float32)
    return lambda: policy.predict(histories, noise)


def _bare(policy: LFMPolicy) -> Side:
    """Return a call of the network forwards of one chunk and nothing else."""
    x, cond = torch.randn(1, *policy.noise_shape), torch.randn(1, 2 * policy.contract.observation_dim)
    t, blocks = torch.ones(1), nn.ModuleList(policy.chain.blocks)

    @torch.inference_mode()
    def forwards() -> None:
        for block in blocks:
            block(x, t, cond)

    return forwards


def _take_turns(sides: Mapping[str, Side], rounds: int, seconds: float) -> Times:
    """Return the milliseconds of each call; the sides take turns, each for at least `seconds` per round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            end = time.perf_counter() + seconds
            while (started := time.perf_counter()) < end or not times[name]:
                side()
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in times.items()}


def _ratio(name: str, times: Times, ours: str, theirs: str, target: float | None, what: str) -> Ratio:
    """Return theirs over ours, of the medians."""
    low, high = float(np.median(times[ours])), float(np.median(times[theirs]))
    spread = "; ".join(f"{side} {_percentiles(times[side])}" for side in (ours, theirs))
    return Ratio(f"latency.{name}", high / low, target, low, high, "ms", f"{what}; p50/p95/p99 in ms: {spread}")


def _percentiles(values: np.ndarray) -> str:
    return "/".join(f"{value:.1f}" for value in np.percentile(values, [50, 95, 99]))
