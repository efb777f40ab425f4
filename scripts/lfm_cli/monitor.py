"""How well a monitor notices that something is wrong: four scores on disturbed episodes.

    lfm monitor policy=outputs/lift data.path=data/lift.zarr episodes=30

Successful undisturbed episodes set a band of alarm levels over time, which at most a share false_alarms of such
episodes crosses. Then other seeds are played undisturbed, with the object moved halfway, with the observation in the
wrong order, with a frozen and with a noisy sensor and with fingers that do not close; where there are cameras, with one
whose pictures are a quarter black, and with two that are swapped. Alarms are counted.
Leaves summary.json, bands.json (for lfm control monitor=), observations (a flow) and scores.json in the output folder.
"""

from dataclasses import fields
from pathlib import Path

from pydantic import Field

from lfm_policy.choices import Place, PolicyChoice, Sampling
from lfm_policy.settings import Frozen

RENAMED = {"demonstrations": "data.path", "steps": "solver.steps"}


class Demonstrations(Frozen):
    """What the policy's observations are like."""

    path: Place = Field(description="prepared data set, whose observations the score logpzo is fitted to")


class Settings(Sampling, PolicyChoice):
    """A policy, and how its episodes are disturbed and judged."""

    data: Demonstrations
    environment: str | None = Field(default=None, description="its name; null: the one in the policy's contract")
    episodes: int = Field(default=30, ge=2, description="episodes of each kind, on the same seeds")
    calibration: int = Field(
        default=100, ge=1, description="undisturbed episodes before these, whose successes set the alarm levels"
    )
    seed: int = Field(default=200_000, ge=0, description="the first one that is judged")
    step: int = Field(default=12, ge=1, description="the first control step that is disturbed")
    distance_m: float = Field(
        default=0.08, gt=0, description="how far the object is moved; a noisy sensor errs by a fifth of it [m]"
    )
    draws: int = Field(default=8, ge=2, description="probes, noises or samples that a score is the mean of")
    false_alarms: float = Field(
        default=0.05, gt=0, lt=1, description="share of successful episodes that may raise an alarm"
    )
    updates: int = Field(default=2000, ge=1, description="updates of the flow on observations")
    threads: int = Field(default=1, ge=1, description="CPU threads")
    out: Place = Field(default=Path("outputs/monitor"), description="output folder")


def main(settings: Settings) -> None:
    """Play and score episodes, write summary.json, show a table."""
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
    trial = Trial(**{field.name: getattr(settings, field.name) for field in fields(Trial)})
    found = judge(policy, store, environment, trial, settings.out)
    summary = {"task": policy.contract.environment, "policy": policy.digest(), **found}
    write_json(settings.out / "summary.json", summary | {"settings": settings.model_dump(mode="json")})
    Console().print(monitor(found["scores"]))
