"""A flow on what a policy is conditioned on, for the monitor's score `logpzo`."""

import torch
from torch import Tensor

from lfm_policy.choices import Solver
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.flow import TensorPool
from lfm_policy.flow.fit import fit, plan
from lfm_policy.models.density import FlowModel
from lfm_policy.models.spec import ChainSpec, FlowSpec
from lfm_policy.training.loop import Trainer
from lfm_policy.training.settings import OptimiserSettings

NETWORK = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 256, "layers": 3, "activation": "silu"}
BATCH = 256
OPTIMISER = OptimiserSettings(learning_rate=1e-3, warmup_steps=100, ema_max_decay=0.999)


def fit_observations(conditions: Tensor, updates: int = 2000, seed: int = 0) -> FlowModel:
    """Fit one block of flow matching to a policy's conditions; see `LFMPolicy.condition`.

    Args:
        conditions: (n, c), of demonstrations.
        updates: of the network.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    chain = ChainSpec(gammas=(), network=NETWORK, precondition=True, solver=Solver(method="midpoint", steps=8))
    model = FlowModel(FlowSpec(dim=conditions.shape[1], chain=chain))
    model.normalizer = AffineNormalizer.standard(conditions)
    phases = plan("simulation_free", 1, updates)
    trainer = Trainer(model.chain, phases, OPTIMISER, seed, lambda report: None, lambda trainer, *, force: None)
    pool = TensorPool(model.normalizer.normalize(conditions))
    fit(model.chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=BATCH)
    model.chain = trainer.ema.chain
    return model
