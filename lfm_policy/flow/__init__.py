"""The generic core of Local Flow Matching (arXiv 2410.02548): it knows neither robots nor images.

One time convention everywhere: inside a block, t = 0 is the data side and t = 1 the noise side. Blocks are counted from
0, so block n carries p_n to p_{n+1}; the paper's block n is block n - 1 here. p_0 is the data and p_N = q = N(0, I).

A velocity network is a callable v(x, t, cond) with x of shape (B, *event), t (B,), cond (B, C) or None, and a value
shaped like x.
"""

from lfm_policy.flow.chain import FlowChain
from lfm_policy.flow.fit import Phase, Pool, Sample, TensorPool, fit, plan
from lfm_policy.flow.interpolant import Interpolant, interpolate
from lfm_policy.flow.likelihood import Hutchinson, Likelihood, log_prob
from lfm_policy.flow.matching import TimeLaw, matching_loss
from lfm_policy.flow.ode import Solution, Solver, integrate
from lfm_policy.flow.schedule import Schedule, ou_step

__all__ = [
    "FlowChain",
    "Hutchinson",
    "Interpolant",
    "Likelihood",
    "Phase",
    "Pool",
    "Sample",
    "Schedule",
    "Solution",
    "Solver",
    "TensorPool",
    "TimeLaw",
    "fit",
    "integrate",
    "interpolate",
    "log_prob",
    "matching_loss",
    "ou_step",
    "plan",
]
