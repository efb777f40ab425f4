"""Policies without a law, as baselines: plain regression, and the two-step minimal iterative policy.

Both learn E || F(I_s, s, o) - a ||² of actions a under observations o, with time s from data (0) to noise (1) as
everywhere here, and differ in the levels s that they know:

    regression  s = 1 alone, with I_1 = 0: F(0, 1, o) is the conditional mean E[a | o]; one evaluation.
    mip         s = 1 with I_1 = 0, and s = 1 - t* with I = t* a + (1 - t*) z, z ~ N(0, I), t* = 0.9: the "minimal
                iterative policy" of Pan et al. (arXiv 2512.01809). A chunk takes two evaluations and no noise,
                a_0 = F(0, 1, o), then a = F(t* a_0, 1 - t*, o).

Each sample of a batch is given one of the levels, so that an update costs as many network evaluations as one of a flow;
in expectation this is the sum of the paper's two terms, halved. (The authors' published code divides the terms by t*²
and (1 - t*)² as well, which Adam sees as a hundredfold weight of the second; here the terms weigh the same, as in the
paper.)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from lfm_policy.flow import Solver
from lfm_policy.flow.chain import Loss
from lfm_policy.flow.interpolant import Batch, Cond, Times, column
from lfm_policy.models.one_way import Step, SteppingChain, require_euler

Kind = Literal["regression", "mip"]

LEVELS: dict[Kind, tuple[float, ...]] = {"regression": (1.0,), "mip": (1.0, 0.1)}
"""s of the steps to data, the noise side first; at 1 the network sees nothing."""


class RegressionChain(SteppingChain):
    """A network F(I_s, s, cond) that is the sample itself, in the place of a flow's only block.

    Args:
        network: F; any velocity network.
        kind: which levels s there are; see the module.
        solver: its `steps` is their number.

    Raises:
        ConfigError: the solver takes another number of steps than there are levels.
    """

    def __init__(self, network: nn.Module, kind: Kind, solver: Solver) -> None:
        super().__init__(network, solver)
        self.kind: Kind = kind
        self.steps(solver)

    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return E || F(I_s, s, cond) - left ||² with noise `right`; uniform t chooses the level of each sample."""
        levels = torch.tensor(LEVELS[self.kind]).to(t)
        s = levels[(t * len(levels)).long().clamp(max=len(levels) - 1)]
        at = column(s, left)
        seen = torch.where(at < 1, (1 - at) * left + at * right, 0)
        return self.regression(n, seen, s, cond, left)

    def steps(self, solver: Solver) -> Sequence[Step]:
        """See `SteppingChain`: each step replaces x by the network's guess at (1 - s) x."""
        levels = LEVELS[self.kind]
        require_euler(solver, [len(levels)], f"objective {self.kind}")
        return [Step(t=s, inner=1 - s, keep=0.0, gain=1.0) for s in levels]
