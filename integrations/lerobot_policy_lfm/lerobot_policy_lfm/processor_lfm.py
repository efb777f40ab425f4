"""What stands before and after a policy in LeRobot's pipelines: names, batches, devices; the model does the rest."""

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from lerobot_policy_lfm.configuration_lfm import LFMConfig

Before = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
After = PolicyProcessorPipeline[PolicyAction, PolicyAction]


def make_lfm_pre_post_processors(
    config: LFMConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """Make LeRobot's default pipelines, in which nothing is normalised.

    Args:
        config: of the policy.
        dataset_stats: not used: the model has them.
    """
    return make_default_pre_post_processors(config, None)
