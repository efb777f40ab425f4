"""What a distillation trains: a student of the teacher's own class, with fewer blocks and one evaluation in each."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Pool, Schedule, TensorPool
from lfm_policy.flow.distill import ONE_STEP
from lfm_policy.flow.interpolant import gaussian_path
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.networks.grow import grown, inherit
from lfm_policy.training.experiments.data_settings import WindowData
from lfm_policy.training.experiments.robot import as_seen_by, window_pool

AnyModel = LFMPolicy | FlowModel


def student_of(teacher: AnyModel, blocks: int, *, grow: bool = True) -> AnyModel:
    """Build a student with N' = `blocks` blocks, each started from the noise-side teacher block that it replaces.

    A teacher of one block, a global flow, is divided: block n of the student replaces the part of its time from n / N'
    to (n + 1) / N' and has its size, so that the student has N' times its parameters.

    Args:
        teacher: policy or flow model with N blocks.
        blocks: N', a divisor of N; of a teacher of one block also a divisor of its solver's steps.
        grow: k = N / N' times the teacher's parameters in each block; otherwise as many, and always as many where the
            blocks share a network.

    Raises:
        ConfigError: N' does not divide N or the steps, or the network cannot grow.
    """
    chain = teacher.chain
    if teacher.spec.chain.objective != "flow":
        raise ConfigError(f"the checkpoint is a {teacher.spec.chain.objective} baseline: only flows can be distilled")
    try:
        schedule = divided(chain, blocks) if parts_of(chain, blocks) > 1 else merged(chain.schedule, blocks)
    except ValueError as error:
        raise ConfigError(f"blocks={blocks}: {error}") from None
    k, network = max(1, len(chain.blocks) // blocks), teacher.spec.chain.network
    if grow and k > 1 and not teacher.spec.chain.share:
        network = grown(network, chain.blocks[0], k)
    changes = {"gammas": schedule.gammas, "solver": ONE_STEP, "network": network}
    described = {"chain": teacher.spec.chain.model_copy(update=changes)}
    match teacher:
        case LFMPolicy(spec=spec, encoding=encoding):
            student = LFMPolicy(spec.model_copy(update=described), deepcopy(encoding))
        case FlowModel(spec=spec):
            student = FlowModel(spec.model_copy(update=described))
    student = student.to(teacher.device)
    for n, block in enumerate(student.chain.blocks):
        inherit(chain.blocks[min(k * (n + 1), len(chain.blocks)) - 1], block)
    normalisers = {name: value for name, value in teacher.state_dict().items() if not name.startswith("chain.")}
    student.load_state_dict(normalisers, strict=False)
    return student.eval()


@runtime_checkable
class Conditions(Protocol):
    """What trajectories are generated under."""

    source: Mapping[str, Any]
    """Where the data come from: a run is only continued on the same."""
    event: tuple[int, ...]
    """Shape of a sample."""
    scale: Tensor
    """Normalised units per unit of the data, for each dimension of a sample."""
    temperature: float
    """Standard deviation of the noise that samples are made from."""

    def pool(self) -> Pool:
        """Return normalised samples with their conditions, to train on."""
        ...

    def held_out(self, count: int) -> Tensor | None:
        """Return at most `count` normalised conditions (count, C) to compare student and teacher under."""
        ...


class Observations:
    """The observations of a prepared data set, for policies.

    Args:
        policy: decides horizons and normalisation.
        data: the data set.

    Raises:
        ContractError: the data have another contract than the policy.
        DataError: the data set is missing or damaged.
    """

    def __init__(self, policy: LFMPolicy, data: Path) -> None:
        self._policy, self._store = policy, as_seen_by(policy, open_store(data))
        policy.contract.require_match(self._store.contract, "the checkpoint", f"the data set {data}")
        self.source: Mapping[str, Any] = self._store.identity
        self.event, self.scale = policy.noise_shape, policy.encoding.action_normalizer.scale
        self.temperature = policy.spec.temperature
        spec = policy.spec
        self._windows = WindowData(
            path=data,
            horizon=spec.horizon,
            observation_steps=spec.observation_steps,
            action_steps=spec.action_steps,
        )

    def pool(self) -> Pool:
        """Return the training windows."""
        return window_pool(self._windows, self._store, self._policy)

    def held_out(self, count: int) -> Tensor:
        """Take conditions of the validation episodes, if there are any."""
        split = "valid" if len(self._store.valid) else "train"
        pool = window_pool(self._windows, self._store, self._policy, split)
        index = torch.linspace(0, len(pool) - 1, min(count, len(pool)), device=self._policy.device)
        cond = pool.take(index.round().long()).cond
        assert cond is not None
        return cond


class Unconditional:
    """Nothing, for flow models."""

    def __init__(self, model: FlowModel) -> None:
        self.source: Mapping[str, Any] = {}
        self.event, self.scale, self.temperature = (model.spec.dim,), model.normalizer.scale, 1.0

    def pool(self) -> Pool:
        """Return a row that says how wide samples are; the samples themselves are not used."""
        return TensorPool(torch.zeros(1, *self.event, device=self.scale.device))

    def held_out(self, count: int) -> None:
        """Return None."""


def conditions_of(teacher: AnyModel, data: Path | None) -> Conditions:
    """Return the conditions for a teacher of either kind.

    Raises:
        ConfigError: a policy without data.
        ContractError: the data have another contract than the policy.
        DataError: the data set is missing or damaged.
    """
    if isinstance(teacher, FlowModel):
        return Unconditional(teacher)
    if data is None:
        raise ConfigError("a policy is distilled under observations: name a prepared data set, data.path=DIR.zarr")
    return Observations(teacher, data)


def parts_of(chain: FlowChain, blocks: int) -> int:
    """Return into how many parts of its time each block is divided for `blocks` students: a single one for several."""
    return blocks if len(chain.blocks) == 1 and blocks > 1 else 1


def divided(chain: FlowChain, blocks: int) -> Schedule:
    """Return the schedule of `blocks` students that divide the time of a teacher's only block.

    Their ends have as much of the data, over the noise, as the teacher's path has there.

    Raises:
        ValueError: the teacher takes no step at the ends.
    """
    steps = chain.solver.counts[0]
    if chain.solver.method != "dopri5" and steps % blocks:
        raise ValueError(f"the teacher's {steps} steps cannot be shared out among {blocks} students equally")
    ends = torch.arange(1, blocks, dtype=torch.float64) / blocks
    mean, std, _, _ = gaussian_path(chain.interpolant, chain.schedule, 0, ends)
    return Schedule.turned(torch.atan2(std, mean).tolist())


def merged(schedule: Schedule, blocks: int) -> Schedule:
    """Return the schedule of N' = `blocks` students, each in place of k = N / N' teacher blocks.

    Raises:
        ValueError: N' does not divide N.
    """
    if blocks < 1 or schedule.blocks % blocks:
        raise ValueError(f"{schedule.blocks} teacher blocks cannot be shared out among {blocks} students equally")
    ends = [schedule.time(schedule.blocks // blocks * n) for n in range(blocks)]
    return Schedule(tuple(after - before for before, after in pairwise(ends)))
