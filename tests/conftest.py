"""Shape types are checked while tests run; nothing a test does leaves the machine or takes more than one thread."""

import os

import torch
from jaxtyping import install_import_hook

install_import_hook("lfm_policy", "beartype.beartype")

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("HYDRA_FULL_ERROR", None)
