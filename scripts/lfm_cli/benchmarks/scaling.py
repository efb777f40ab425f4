"""Two processes against one: rollouts of a policy, and blocks trained in runs of their own.

The value is how many times faster two are; half of it is the efficiency. Processes are started, and have worked,
before the clock starts.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import torch

import lfm_envs
from lfm_cli.benchmarks import Ratio, Settings, alternate
from lfm_cli.benchmarks.training import ACTION, BATCH, COND, DIMS, STEPS
from lfm_envs.tasks import TASKS
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import FlowChain, Schedule, TensorPool, fit, plan
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, PolicySpec
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.processes import usable_cores
from lfm_policy.protocols import Environment
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.rollout.seats import PolicyIn
from lfm_policy.training.blocks import block_phase
from lfm_policy.training.loop import Trainer
from lfm_policy.training.settings import OptimiserSettings

SCHEDULE = Schedule.geometric(4, 0.15, 1.25)
SEED = 100000
EPISODE_STEPS = 80
UPDATES = 3
"""Updates of each block in one measurement."""


def measure(settings: Settings) -> Iterator[Ratio]:
    """Yield the suite's ratios; on a machine with fewer than two idle cores they say so."""
    yield _rollouts(settings, "parent")
    yield _rollouts(settings, "workers")
    yield _blocks(settings)


def _rollouts(settings: Settings, place: PolicyIn) -> Ratio:
    """Measure two workers against one, with the policy in a process of its own or copied into them."""
    policy, seeds = _policy(), range(SEED, SEED + settings.rollouts)
    lift().close()  # compiles what the workers then load
    rounds = [[_episodes_per_second(policy, seeds, n, place) for n in (2, 1)] for _ in range(settings.repeats)]
    two, one = (median(rates) for rates in zip(*rounds, strict=True))
    seat = "in a third process" if place == "parent" else "copied into each"
    note = f"{len(seeds)} episodes of {EPISODE_STEPS} Lift steps, 2 workers against 1, the policy {seat}; "
    name, target = ("rollouts_2", None) if place == "parent" else ("copies_2", 1.8)
    return Ratio(f"scaling.{name}", two / one, target, two, one, "episodes/s", note + _load())


def _episodes_per_second(policy: LFMPolicy, seeds: Sequence[int], workers: int, place: PolicyIn) -> float:
    """Return the speed of workers that are running, each with what it needs."""
    with Runner(policy, lift, RunnerOptions(workers=workers, policy_in=place)) as runner:
        runner.run(range(workers))
        started = time.perf_counter()
        runner.run(seeds)
        return len(seeds) / (time.perf_counter() - started)


def lift() -> Environment:
    """Make Lift with short episodes."""
    environment = lfm_envs.make("robosuite/lift")
    environment.horizon = EPISODE_STEPS  # pyright: ignore[reportAttributeAccessIssue]
    return environment


def _policy() -> LFMPolicy:
    """Make a policy with random weights: the episodes all take their full length."""
    torch.manual_seed(0)
    contract = TASKS["lift"].contract
    network = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": list(DIMS)}
    spec = PolicySpec(chain=ChainSpec(gammas=SCHEDULE.gammas, network=network))
    identities = (AffineNormalizer.identity(dim) for dim in (contract.observation_dim, contract.action_dim))
    return LFMPolicy(spec, Encoding(contract, *identities)).eval()


def _blocks(settings: Settings) -> Ratio:
    everything = tuple(range(SCHEDULE.blocks))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:

        def two() -> None:
            list(processes.map(train, [everything[0::2], everything[1::2]]))

        def one() -> None:
            processes.submit(train, everything).result()

        seconds = alternate([two, one], settings.repeats, settings.seconds)
    fast, slow = (UPDATES * BATCH * SCHEDULE.blocks / s for s in seconds)
    note = (
        f"{SCHEDULE.blocks} blocks, dims {list(DIMS)}, each a run of its own, in 2 processes against 1, a thread each; "
    )
    return Ratio("scaling.blocks_2", fast / slow, None, fast, slow, "windows/s", note + _load())


def train(blocks: Sequence[int]) -> None:
    """Make a few updates of some blocks, one after the other, as with ranks=blocks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pool = TensorPool(torch.randn(4096, STEPS, ACTION), torch.randn(4096, COND))
    chain = FlowChain([ConditionalUnet1d(ACTION, COND, DIMS) for _ in range(SCHEDULE.blocks)], SCHEDULE)
    (phase,) = plan("simulation_free", SCHEDULE.blocks, UPDATES)
    for n in blocks:
        phases = (block_phase(phase, n),)
        trainer = Trainer(chain, phases, OptimiserSettings(), 0, lambda report: None, lambda trainer, *, force: None)
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=BATCH)


def _load() -> str:
    return f"{usable_cores()} cores, load average {os.getloadavg()[0]:.1f}"
