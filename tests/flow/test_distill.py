"""Students of teachers with a closed form."""

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Phase, Schedule, Solver, plan
from lfm_policy.flow.distill import ONE_STEP, Target, Trajectories, distil, trajectory
from lfm_policy.flow.fit import Losses
from lfm_policy.training.distillation.students import divided, merged
from tests.flow.gaussian import Gaussian, exact_chain

DATA, SCHEDULE = Gaussian(1.5, 0.4), Schedule.geometric(4, 0.25, 1.25)


class Affine(nn.Module):
    """v(x, t) = a x + b: as a one-step student it can be any affine map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.weight[0] * x + self.weight[1]


def _noise(count: int, seed: int) -> Tensor:
    return Gaussian(0, 1).sample(count, 2, seed=seed)


def _fitted(
    teacher: FlowChain, blocks: int, target: Target, rounds: int = 1, schedule: Schedule | None = None
) -> FlowChain:
    student = FlowChain([Affine() for _ in range(blocks)], schedule or merged(SCHEDULE, blocks), solver=ONE_STEP)
    parts = 1 if schedule is None else blocks

    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        """Least squares to convergence, again and again as the student's own states move."""
        tight = {"tolerance_grad": 1e-12, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
        for _ in range(rounds):
            todo = list(losses(torch.Generator().manual_seed(0)))
            optimiser = torch.optim.LBFGS(student.parameters(), max_iter=200, **tight)

            def closure(todo: list = todo, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
                optimiser.zero_grad()
                total = torch.stack([loss() for loss in todo]).sum()
                total.backward()
                return total

            optimiser.step(closure)

    def draw(generator: torch.Generator) -> Trajectories:
        noise = torch.randn(256, 2, generator=generator, dtype=torch.float64)
        return Trajectories(trajectory(teacher, noise, inside=target == "consistency", parts=parts))

    distil(student, student, draw, plan("simulation_free", blocks, 1), optimise, target=target)
    return student


@pytest.mark.parametrize("target", ["trajectory", "on_policy"])
@pytest.mark.parametrize("blocks", [4, 2, 1])
def test_the_student_of_an_affine_teacher_is_exact(blocks: int, target: Target) -> None:
    """Gaussian transport is affine, so one step a block loses nothing, however many blocks it stands for."""
    teacher = exact_chain(DATA, SCHEDULE, Solver("rk4", 20))
    student = _fitted(teacher, blocks, target, rounds=blocks)  # each round settles one more block on the student's way
    noise = _noise(64, 9)
    ours, theirs = student.to_data(noise), teacher.to_data(noise)
    torch.testing.assert_close(ours.x, theirs.x, atol=1e-5, rtol=0)
    assert (ours.nfe, theirs.nfe) == (blocks, 4 * 80)


def test_on_policy_a_block_makes_good_what_the_one_before_got_wrong() -> None:
    """A first block that is off by an affine map: on the teacher's states the error stays, on the student's it goes."""
    teacher = exact_chain(DATA, SCHEDULE, Solver("rk4", 20))
    noise = _noise(256, 3)
    states = trajectory(teacher, noise)

    def end(target: Target) -> Tensor:
        student = FlowChain([Affine(), Affine()], merged(SCHEDULE, 2), solver=ONE_STEP)
        student.blocks[1].weight.data = torch.tensor([0.3, 0.2], dtype=torch.float64)

        def optimise(k: int, phase: Phase, losses: Losses) -> None:
            (loss,) = losses(torch.Generator())
            optimiser = torch.optim.LBFGS(student.blocks[0].parameters(), max_iter=200, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                optimiser.zero_grad()
                value = loss()
                value.backward()
                return value

            optimiser.step(closure)

        distil(student, student, lambda _: Trajectories(states), [Phase((0,), "marginal", 1)], optimise, target=target)
        return student.to_data(noise).x

    torch.testing.assert_close(end("on_policy"), states[0], atol=1e-4, rtol=0)
    assert (end("trajectory") - states[0]).abs().mean() > 0.1


def test_consistency_asks_for_the_same_end_from_every_state_on_the_way() -> None:
    """Half of the rows start at t = 1, the others anywhere on the teacher's grid; each is a state with its time."""
    teacher = exact_chain(DATA, SCHEDULE, Solver("euler", 5))
    states = trajectory(teacher, _noise(400, 5), inside=True)
    assert len(states) == 21
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(Affine):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            seen.append((x, t))
            return super().forward(x, t, cond)

    student = FlowChain([Watched(), Watched()], merged(SCHEDULE, 2), solver=ONE_STEP)

    def optimise(k: int, phase: Phase, losses: Losses) -> None:
        for loss in losses(torch.Generator().manual_seed(0)):
            loss()

    draws, phases = lambda _: Trajectories(states), plan("simulation_free", 2, 1)
    distil(student, student, draws, phases, optimise, target="consistency")
    for n, (x, t) in enumerate(seen):
        place = (t * 10).round().long()
        torch.testing.assert_close(x, states[10 * n + place, torch.arange(400)])
        assert (place[1::2] == 10).all()
        assert set(place[::2].tolist()) == set(range(1, 11))


def test_one_step_from_t_1_is_the_solvers() -> None:
    student = FlowChain([Affine()], Schedule(()), solver=ONE_STEP)
    student.blocks[0].weight.data += 0.3
    x, ones = _noise(8, 1), torch.ones(8)
    assert student.regression(0, x, ones, None, x - student.to_data(x).x)() < 1e-12


def test_a_trajectory_ends_where_the_teacher_does() -> None:
    teacher, noise = exact_chain(DATA, SCHEDULE), _noise(16, 0)
    states = trajectory(teacher, noise)
    assert len(states) == 5
    torch.testing.assert_close(states[-1], noise)
    torch.testing.assert_close(states[0], teacher.to_data(noise).x)
    marginal = DATA.marginal(SCHEDULE, 2)
    torch.testing.assert_close(states[2], marginal.mean + marginal.std * noise, atol=1e-6, rtol=0)


def test_states_inside_blocks_are_those_of_the_solvers_steps() -> None:
    teacher, noise = exact_chain(DATA, SCHEDULE, Solver("euler", 3)), _noise(16, 0)
    inside, ends = trajectory(teacher, noise, inside=True), trajectory(teacher, noise)
    assert len(inside) == 13
    torch.testing.assert_close(inside[::3], ends)


@pytest.mark.parametrize("solver", [Solver("rk4", 60), Solver("dopri5", tolerance=1e-8)])
def test_students_that_divide_the_only_block_of_an_affine_teacher_are_exact(solver: Solver) -> None:
    teacher = exact_chain(DATA, Schedule(()), solver)
    student = _fitted(teacher, 4, "trajectory", schedule=divided(teacher, 4))
    noise = _noise(50, seed=5)
    expected = trajectory(teacher, noise, parts=4)
    torch.testing.assert_close(trajectory(student, noise, solver=ONE_STEP), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="do not make 7 equal parts"):
        trajectory(exact_chain(DATA, Schedule(())), noise, parts=7)
