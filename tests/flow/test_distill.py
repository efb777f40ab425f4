"""Students of teachers with a closed form."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Phase, Schedule, Solver, TensorPool, plan
from lfm_policy.flow.distill import ONE_STEP, distil, merged, trajectory
from lfm_policy.flow.fit import Losses
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE = Gaussian(1.5, 0.4), Schedule.geometric(4, 0.25, 1.25)


class Affine(nn.Module):
    """v(x, t) = a x + b: as a one-step student it can be any affine map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.weight[0] * x + self.weight[1]


@pytest.mark.parametrize("blocks", [4, 2, 1])
def test_the_student_of_an_affine_teacher_is_exact(blocks: int) -> None:
    """Gaussian transport is affine, so one step a block loses nothing, however many blocks it stands for."""
    teacher = exact_chain(DATA, SCHEDULE, Solver("rk4", 20))
    student = FlowChain([Affine() for _ in range(blocks)], merged(SCHEDULE, blocks), solver=ONE_STEP)

    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        tight = {"tolerance_grad": 1e-12, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
        optimiser = torch.optim.LBFGS(student.parameters(), max_iter=200, **tight)

        def closure() -> Tensor:
            optimiser.zero_grad()
            total = torch.stack([loss() for loss in losses(torch.Generator().manual_seed(0))]).sum()
            total.backward()
            return total

        optimiser.step(closure)

    pool = TensorPool(DATA.sample(100, 2))
    distil(student, teacher, pool, plan("simulation_free", blocks, 1), optimise, batch=256)
    noise = Gaussian(0, 1).sample(64, 2, seed=9)
    ours, theirs = student.to_data(noise), teacher.to_data(noise)
    torch.testing.assert_close(ours.x, theirs.x, atol=1e-5, rtol=0)
    assert (ours.nfe, theirs.nfe) == (blocks, 4 * 80)


@pytest.mark.parametrize("blocks", [4, 2, 1])
def test_a_trajectory_ends_where_the_teacher_does(blocks: int) -> None:
    teacher, noise = exact_chain(DATA, SCHEDULE), Gaussian(0, 1).sample(16, 2)
    states = trajectory(teacher, noise, None, blocks)
    assert len(states) == blocks + 1
    assert states[-1] is noise
    torch.testing.assert_close(states[0], teacher.to_data(noise).x)
    marginal = DATA.marginal(SCHEDULE, 4 // blocks)
    torch.testing.assert_close(states[1], marginal.mean + marginal.std * noise, atol=1e-6, rtol=0)


def test_merged_schedules_end_at_the_same_times() -> None:
    two = merged(SCHEDULE, 2)
    assert two.blocks == 2
    assert two.time(1) == pytest.approx(SCHEDULE.time(2))
    assert merged(SCHEDULE, 1).blocks == 1
    assert merged(SCHEDULE, 4).gammas == pytest.approx(SCHEDULE.gammas)


def test_only_divisors_are_possible() -> None:
    with pytest.raises(ValueError, match="4 teacher blocks cannot be shared out among 3"):
        merged(SCHEDULE, 3)
