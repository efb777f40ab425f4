"""The generic core of Local Flow Matching (arXiv 2410.02548): it knows neither robots nor images.

One time convention everywhere: inside a block, t = 0 is the data side and t = 1 the noise side. Blocks are counted from
0, so block n carries p_n to p_{n+1}; the paper's block n is block n - 1 here. p_0 is the data and p_N = q = N(0, I).

A velocity network is a callable v(x, t, cond) with x of shape (B, *event), t (B,), cond (B, C) or None, and a value
shaped like x.
"""

from lfm_policy.flow.chain import FlowChain as FlowChain
from lfm_policy.flow.fit import Phase as Phase
from lfm_policy.flow.fit import Pool as Pool
from lfm_policy.flow.fit import Sample as Sample
from lfm_policy.flow.fit import TensorPool as TensorPool
from lfm_policy.flow.fit import TimeLaw as TimeLaw
from lfm_policy.flow.fit import fit as fit
from lfm_policy.flow.fit import plan as plan
from lfm_policy.flow.interpolant import Interpolant as Interpolant
from lfm_policy.flow.likelihood import Hutchinson as Hutchinson
from lfm_policy.flow.likelihood import log_prob as log_prob
from lfm_policy.flow.ode import Solver as Solver
from lfm_policy.flow.schedule import Schedule as Schedule
