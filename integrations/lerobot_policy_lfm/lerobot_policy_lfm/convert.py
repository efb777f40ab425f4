"""Bring a policy of lfm_policy into a folder that LeRobot loads: `lfm-to-lerobot SOURCE OUT`.

SOURCE is what `lfm_policy.open_policy` takes: a checkpoint, a bundle, an installed name ("lift") or a hub's repository.
"""

import argparse
import sys
from pathlib import Path

from lerobot.configs import FeatureType, PolicyFeature

import lfm_policy
from lerobot_policy_lfm.configuration_lfm import LFMConfig
from lerobot_policy_lfm.modeling_lfm import LFMPolicy
from lerobot_policy_lfm.processor_lfm import make_lfm_pre_post_processors
from lfm_policy.bundles.open import open_torch
from lfm_policy.contract import Contract
from lfm_policy.data.lerobot.info import ACTION, ENV_STATE, PICTURES
from lfm_policy.data.lerobot.names import columns_of
from lfm_policy.errors import LFMError
from lfm_policy.models.lerobot import Description


def convert(source: str, out: Path) -> None:
    """Write the policy `source`, with its averaged weights, as LeRobot's "pretrained_model".

    Raises:
        LFMError: it cannot be opened, or is no flow.
    """
    config, policy = policy_of(open_torch(source))
    policy.save_pretrained(out)
    for pipeline in make_lfm_pre_post_processors(config):
        pipeline.save_pretrained(out)


def policy_of(model: lfm_policy.LFMPolicy) -> tuple[LFMConfig, LFMPolicy]:
    """Return a policy around a model, and its configuration."""
    chain = model.spec.chain.model_copy(update={"solver": model.chain.solver})
    said = Description.of(model.spec.model_copy(update={"chain": chain}), model.contract)
    values = {name: getattr(said, name) for name in Description.model_fields if name not in ("type", "contract")}
    config = LFMConfig(
        **values,
        contract=model.contract.model_dump(mode="json"),
        device="cpu",
        input_features=_observed(model.contract),
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (model.contract.action_dim,))},
    )
    policy = LFMPolicy(config)
    policy._take(model)
    return config, policy.eval()


def _observed(contract: Contract) -> dict[str, PolicyFeature]:
    kinds = {ENV_STATE: FeatureType.ENV}
    vectors = {
        key: PolicyFeature(kinds.get(key, FeatureType.STATE), (len(columns),))
        for key, columns in columns_of(contract).items()
    }
    pictures = {
        f"{PICTURES}{camera.name}": PolicyFeature(FeatureType.VISUAL, (3, camera.height, camera.width))
        for camera in contract.cameras
    }
    return vectors | pictures


def main() -> None:
    """Convert, as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", help="checkpoint, bundle, installed name (lift), or USER/REPOSITORY of the hub")
    parser.add_argument("out", type=Path, help="folder to write: lerobot-eval --policy.path=OUT")
    given = parser.parse_args()
    try:
        convert(given.source, given.out)
    except LFMError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
