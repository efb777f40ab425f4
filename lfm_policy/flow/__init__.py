"""The generic core of Local Flow Matching (arXiv 2410.02548): it knows neither robots nor images.

One time convention everywhere: inside a block, t = 0 is the data side and t = 1 the noise side. Blocks are counted from
0, so block n carries p_n to p_{n+1}; the paper's block n is block n - 1 here. p_0 is the data and p_N = q = N(0, I).

A velocity network is a callable v(x, t, cond) with x of shape (B, *event), t (B,), cond (B, C) or None, and a value
shaped like x.
"""

from lfm_policy.flow.chain import FlowChain
from lfm_policy.flow.fit import Phase, Pool, Sample, TensorPool, fit, plan
from lfm_policy.flow.interpolant import Interpolant
from lfm_policy.flow.likelihood import Hutchinson, log_prob
from lfm_policy.flow.matching import TimeLaw
from lfm_policy.flow.ode import Solver
from lfm_policy.flow.schedule import Schedule

__all__ = [
    "FlowChain",
    "Hutchinson",
    "Interpolant",
    "Phase",
    "Pool",
    "Sample",
    "Schedule",
    "Solver",
    "TensorPool",
    "TimeLaw",
    "fit",
    "log_prob",
    "plan",
]
