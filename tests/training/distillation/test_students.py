"""Students before they are trained: what they inherit from their teachers."""

import pytest
import torch

from lfm_envs.point_mass import CONTRACT
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import ConfigError
from lfm_policy.flow import Schedule, Solver, TensorPool
from lfm_policy.flow.interpolant import gaussian_path
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, FlowSpec
from lfm_policy.training.distillation.students import merged, student_of
from lfm_policy.training.distillation.trajectories import Teacher
from tests.bundles.policies import plain

NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [8, 16], "time_dim": 8}
MLP = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 16, "layers": 2}
GAMMAS = (0.2, 0.3, 0.4)


def _policy(**changes: object) -> LFMPolicy:
    torch.manual_seed(1)
    normalizers = (AffineNormalizer.standard(torch.randn(50, 4) * 3), AffineNormalizer.min_max(torch.randn(50, 2)))
    chain = {"solver": Solver("heun", 3)} | {name: changes.pop(name) for name in list(changes) if name != "temperature"}
    gammas = chain.pop("gammas", GAMMAS)
    return plain(CONTRACT, NETWORK, gammas, normalizers, chain, **changes)


def _chunk(policy: LFMPolicy, solver: Solver | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(3, 2, 4, generator=generator)
    return policy.predict_action_chunk({"observation.state": state}, torch.randn(3, 16, 2, generator=generator), solver)


def test_a_student_acts_at_its_teachers_temperature_and_learns_from_it() -> None:
    teacher = _policy(temperature=0.0)
    assert student_of(teacher, 2).spec.temperature == 0.0
    pool = TensorPool(torch.zeros(5, 16, 2), torch.randn(5, 8))
    drawn = Teacher(teacher.chain, pool, Solver(), inside=False, temperature=0.0).draw(3, torch.Generator())
    assert torch.equal(drawn.states[-1], torch.zeros(3, 16, 2))
    assert drawn.states[0].abs().min() > 0


@pytest.mark.parametrize("share", [False, True])
def test_with_as_many_blocks_a_student_begins_as_its_teacher_with_one_euler_step(share: bool) -> None:
    teacher = _policy(share=share)
    student = student_of(teacher, 4)
    assert student.chain.solver == Solver("euler", 1)
    assert torch.equal(_chunk(student), _chunk(teacher, Solver("euler", 1)))


def test_a_student_begins_as_the_noise_side_block_that_it_replaces() -> None:
    teacher = _policy()
    student = student_of(teacher, 2, grow=False)
    assert student.spec.chain.gammas == pytest.approx((0.5,))
    for ours, theirs in ((0, 1), (1, 3)):
        state, origin = (m.chain.blocks[n].state_dict() for m, n in ((student, ours), (teacher, theirs)))
        assert all(torch.equal(state[name], origin[name]) for name in origin)


def test_the_teacher_is_left_as_it_is() -> None:
    teacher = _policy()
    before = teacher.digest()
    student = student_of(teacher, 4)
    with torch.no_grad():
        next(student.chain.parameters()).add_(1)
        student.encoding.action_normalizer.scale.mul_(2)
    assert teacher.digest() == before


def test_blocks_that_share_a_network_keep_sharing_it() -> None:
    student = student_of(_policy(share=True), 2)
    assert student.spec.chain.network == NETWORK
    assert len(student.chain.blocks) == 2
    assert _chunk(student).shape == (3, 16, 2)


def test_a_flow_models_student() -> None:
    teacher = FlowModel(FlowSpec(dim=2, chain=ChainSpec(gammas=GAMMAS, network=MLP)))
    teacher.normalizer = AffineNormalizer.standard(torch.randn(40, 2) * 5)
    student = student_of(teacher, 1)
    assert isinstance(student, FlowModel)
    assert (len(student.chain.blocks), student.spec.chain.network["width"]) == (1, 32)
    assert torch.equal(student.normalizer.scale, teacher.normalizer.scale)
    assert student.sample(torch.randn(5, 2)).nfe == 1


@pytest.mark.parametrize(("objective", "steps"), [("ddim", 4), ("regression", 1), ("mip", 2), ("shortcut", 2)])
def test_a_baseline_that_is_no_flow_has_no_trajectory_to_learn_from(objective: str, steps: int) -> None:
    if objective == "ddim":
        pytest.importorskip("diffusers")
    teacher = _policy(gammas=(), objective=objective, solver=Solver("euler", steps))
    with pytest.raises(ConfigError, match="only flows can be distilled"):
        student_of(teacher, 1)


SCHEDULE = Schedule.geometric(4, 0.25, 1.25)


def test_merged_schedules_end_at_the_same_times() -> None:
    two = merged(SCHEDULE, 2)
    assert two.blocks == 2
    assert two.time(1) == pytest.approx(SCHEDULE.time(2))
    assert merged(SCHEDULE, 1).blocks == 1
    assert merged(SCHEDULE, 4).gammas == pytest.approx(SCHEDULE.gammas)


def test_only_divisors_are_possible() -> None:
    with pytest.raises(ValueError, match="4 teacher blocks cannot be shared out among 3"):
        merged(SCHEDULE, 3)


@pytest.mark.parametrize("interpolant", ["linear", "trigonometric"])
def test_the_only_block_of_a_teacher_is_divided_and_each_part_has_its_size(interpolant: str) -> None:
    teacher = _policy(gammas=(), solver=Solver("euler", 8), interpolant=interpolant)
    student = student_of(teacher, 4)
    assert len(student.chain.blocks) == 4
    for block in student.chain.blocks:
        assert all(torch.equal(a, b) for a, b in zip(block.parameters(), teacher.chain.parameters(), strict=True))
    for n in range(5):  # the students' ends have as much data over noise as the teacher's path has
        mean, std, _, _ = gaussian_path(teacher.chain.interpolant, teacher.chain.schedule, 0, torch.tensor(n / 4))
        assert student.chain.schedule.angle(n) == pytest.approx(torch.atan2(std, mean).item(), abs=1e-6)
    with pytest.raises(ConfigError, match="8 steps cannot be shared out among 3 students"):
        student_of(teacher, 3)
    assert len(student_of(_policy(gammas=(), solver=Solver("dopri5")), 3).chain.blocks) == 3
