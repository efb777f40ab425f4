"""One network for all blocks: one set of weights, and an index that matters."""

import copy
from pathlib import Path

import pytest
import torch

from lfm_policy.flow import FlowChain, Schedule, Solver, TensorPool, fit, plan
from lfm_policy.flow.chain import Loss
from lfm_policy.models.density import FlowModel
from lfm_policy.models.spec import ChainSpec, FlowSpec
from lfm_policy.networks import SharedBlocks, VelocityMlp, build_blocks
from lfm_policy.training.ema import Ema
from tests.training.runs import run_until, settings

SPEC = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 8, "layers": 1}


def test_the_blocks_share_weights_and_differ_by_their_index() -> None:
    torch.manual_seed(0)
    blocks = build_blocks(SPEC, 3, share=True, dim=2)
    (own,) = build_blocks(SPEC, 1, dim=2, cond_dim=3)
    assert len(blocks) == len(list(blocks)) == 3
    assert sum(p.numel() for p in blocks.parameters()) == sum(p.numel() for p in own.parameters())
    x, t = torch.randn(5, 2), torch.rand(5)
    values = [block(x, t) for block in blocks]
    assert not torch.allclose(values[0], values[1])
    own.load_state_dict(blocks[1].network.state_dict())
    torch.testing.assert_close(values[1], own(x, t, torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)))


def test_the_index_follows_the_condition() -> None:
    blocks = build_blocks(SPEC, 2, share=True, dim=2, cond_dim=4)
    x, t, cond = torch.randn(5, 2), torch.rand(5), torch.randn(5, 4)
    code = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    torch.testing.assert_close(blocks[0](x, t, cond), blocks[0].network(x, t, torch.cat([cond, code], 1)))


def test_the_average_of_a_shared_network_is_updated_once_a_step() -> None:
    chain = FlowChain(SharedBlocks(VelocityMlp(2, cond_dim=3, width=4), 3), Schedule((0.1, 0.1)))
    ema = Ema(chain, power=0.0, max_decay=0.5)
    ema.decay = lambda: 0.75  # type: ignore[method-assign]
    before = copy.deepcopy(chain.state_dict())
    with torch.no_grad():
        for p in chain.parameters():
            p.add_(1.0)
    ema.update(chain, (0, 1, 2))
    for name, value in ema.chain.state_dict().items():
        torch.testing.assert_close(value, before[name] + (0.25 if "weight" in name or "bias" in name else 0.0))


def test_blocks_that_share_a_network_share_each_batch_out() -> None:
    """Every row of a batch is asked once, about one block, so an update costs what one of a single block does."""
    chain = FlowChain(SharedBlocks(VelocityMlp(2, cond_dim=3, width=4), 3), Schedule((0.1, 0.1)))
    pool, generator = TensorPool(torch.randn(20, 2)), torch.Generator()
    found: list[list[Loss]] = []
    phases = plan("simulation_free", 3, 1)
    for out in (True, False):
        fit(chain, chain, pool, phases, lambda k, phase, losses: found.append(list(losses(generator.manual_seed(0)))),
            batch=8, rows=slice(1, 8), share_out=out)  # fmt: skip
    shared, whole = found
    assert [len(loss.x) for loss in shared] == [3, 2, 2]
    for place, (part, full) in enumerate(zip(shared, whole, strict=True)):
        assert torch.equal(part.x, full.x[place::3])
        assert torch.equal(part.t, full.t[place::3])


def test_a_shared_model_trains_and_is_read_back(tmp_path: Path) -> None:
    small = ["data.samples=300", "data.test=20", "global_network.width=8", "batch=16", "logging.mode=disabled"]
    chain = ["flow.blocks=3", "flow.share=true", "flow.mode=simulation_free", "parallel=2"]
    solver = "flow.solver={method: euler, steps: 2}"
    run_until(None, "experiment=2d/two_moons", *small, *chain, solver, "updates=3", f"out={tmp_path}")
    model = FlowModel.from_pretrained(tmp_path)
    assert len(model.chain.blocks) == 3
    assert model.spec.chain.network["width"] == 8
    assert sum(p.numel() for p in model.parameters()) == (1 + 2 + 3) * 8 + 8 + 2 * (8 * 8 + 8) + 8 * 2 + 2
    assert model.sample(torch.zeros(4, 2)).nfe == 3 * 2


def test_sharing_is_refused_where_blocks_are_fitted_in_turn() -> None:
    with pytest.raises(Exception, match="share=true needs mode=simulation_free"):
        settings("experiment=2d/two_moons", "flow.share=true", "out=x")


def test_a_model_is_what_its_specification_says() -> None:
    spec = FlowSpec(dim=2, chain=ChainSpec(gammas=(0.1, 0.2), network=SPEC, share=True, solver=Solver("euler", 1)))
    assert {name.split(".")[2] for name in FlowModel(spec).state_dict() if name.startswith("chain")} == {"0"}
