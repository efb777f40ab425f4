"""How well a policy's own density notices that something is wrong: AUROC of three scores on disturbed episodes.

    lfm monitor policy=outputs/lift data.path=data/lift.zarr episodes=30

Alarm levels are quantiles over the held-out demonstrations. Then episodes are run undisturbed, with the object moved
halfway, with the observation in the wrong order and with a frozen sensor, and the same decisions of each are scored.
Leaves summary.json, thresholds.json (for lfm control monitor=) and scores.json in the output folder.
"""

from pathlib import Path

from pydantic import Field

from lfm_policy.choices import Place, PolicyChoice, Sampling
from lfm_policy.settings import Frozen

RENAMED = {"demonstrations": "data.path", "steps": "solver.steps"}


class Demonstrations(Frozen):
    """What sets the alarm levels."""

    path: Place = Field(description="prepared data set; its held-out demonstrations set the alarm levels")


class Settings(Sampling, PolicyChoice):
    """A policy, and how its episodes are disturbed and judged."""

    data: Demonstrations
    environment: str | None = Field(default=None, description="its name; null: the one in the policy's contract")
    episodes: int = Field(default=30, ge=2, description="of each kind, on the same seeds")
    seed: int = Field(default=200_000, ge=0, description="the first one")
    step: int = Field(default=12, ge=1, description="the first control step that is disturbed")
    decisions: int = Field(
        default=2,
        ge=1,
        description="chunks judged in each episode, from the disturbance on; the highest score counts",
    )
    distance_m: float = Field(default=0.08, gt=0, description="how far the object is moved [m]")
    draws: int = Field(default=8, ge=2, description="of each score: probes, noises or samples")
    quantile: float = Field(default=0.95, gt=0, lt=1, description="of the held-out scores, where the alarm is set")
    threads: int = Field(default=1, ge=1, description="CPU threads")
    out: Place = Field(default=Path("outputs/monitor"), description="output folder")


def main(settings: Settings) -> None:
    """Score disturbed episodes, write summary.json, show a table."""
    import torch
    from rich.console import Console

    import lfm_envs
    from lfm_cli.tables import monitor
    from lfm_envs.monitoring import Trial, judge
    from lfm_policy.bundles.open import open_torch
    from lfm_policy.data.windows.store import open_store
    from lfm_policy.files import write_json

    torch.set_num_threads(settings.threads)
    opening = settings.model_dump(include={"weights", "threads", "trust_code"})
    policy = open_torch(settings.policy, sampling=settings.sampling, **opening)
    store = open_store(settings.data.path)
    policy.contract.require_match(store.contract, f"policy {settings.policy}", str(settings.data.path))
    environment = settings.environment or lfm_envs.name_for(policy.contract, settings.trust_code)
    names = ("episodes", "seed", "step", "decisions", "distance_m", "draws", "quantile")
    trial = Trial(**{name: getattr(settings, name) for name in names})
    results = judge(policy, store, environment, trial, settings.out)
    summary = {"task": policy.contract.environment, "policy": policy.digest(), "scores": results}
    write_json(settings.out / "summary.json", summary | {"settings": settings.model_dump(mode="json")})
    Console().print(monitor(results))
