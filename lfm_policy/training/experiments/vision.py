"""Learning to see before learning to act: encoder and a head that is thrown away regress chunks from pictures.

Regression sees what the pictures tell undiluted, where a flow's loss is mostly noise; afterwards the encoder is frozen
and its features are a table, so that the chain trains on them as on any other numbers.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfm_policy.data.windows.frames import read_frames
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import Split, Store
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import write_json
from lfm_policy.flow import FlowChain, Phase, Schedule
from lfm_policy.flow.chain import Loss
from lfm_policy.models.pretrained import digest, read_tensors, save_tensors
from lfm_policy.models.sight import Sight
from lfm_policy.training.experiments.settings import TrainSettings, VisionSettings

FOLDER = "encoder"
"""Below the run's folder: checkpoint, metrics and summary of this stage."""


class Regressor(nn.Module):
    """The mean chunk from proprioception and pictures, in the chain's units.

    Args:
        sight: what is trained for later.
        cond: width of the rest of the condition.
        chunk: (T, A).
        hidden: width of the head.
    """

    def __init__(self, sight: Sight, cond: int, chunk: tuple[int, int], hidden: int) -> None:
        super().__init__()
        self.sight = sight
        self.head = nn.Sequential(
            nn.Linear(cond + sight.features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, chunk[0] * chunk[1]),
            nn.Unflatten(1, chunk),
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Regress chunks (B, T, A) from cropped pictures x (B, K, h, w, 3); t is not used."""
        return self.head(torch.cat([cond, self.sight.encode(x)], dim=1))


class Seeing(nn.Module):
    """The regression as what `Trainer` and `Checkpointer` know: a model around a chain of one block."""

    def __init__(self, regressor: Regressor) -> None:
        super().__init__()
        self.chain = FlowChain([regressor], Schedule(()))

    def write(self, directory: Path) -> None:
        """Write the weights into an existing directory."""
        save_tensors(self.state_dict(), directory / "model.safetensors")

    def digest(self) -> str:
        """Hash of the weights."""
        return digest("", self)


def learn_to_see(settings: TrainSettings, policy: Any, windows: Windows, fingerprint: dict[str, Any]) -> None:
    """Train the policy's encoders, or what is left of it; interrupted runs continue bit for bit.

    Args:
        settings: of the run; `settings.vision` says how.
        policy: an `LFMPolicy` with normalisers and fresh encoders, which are frozen in the end.
        windows: the training windows, with pictures.
        fingerprint: what decides the result, for a resumed run to agree.

    Raises:
        ConfigError, CheckpointError: the weights to begin with do not fit.
    """
    vision, sight = settings.vision, policy.sight
    assert vision is not None
    assert windows.frames is not None
    if vision.trained is not None:
        sight.load_state_dict(_sight_of(vision.trained, sight))
    else:
        if vision.weights is not None:
            begin_encoders(sight, Path(vision.weights))
        width = policy.condition(torch.zeros(1, *windows.gather(torch.tensor([0])).observation.shape[1:])).shape[1]
        model = Seeing(Regressor(sight, width, policy.noise_shape, vision.hidden).to(policy.device))
        trained = _train(settings, vision, policy, model, windows, fingerprint)
        sight.load_state_dict(trained.sight.state_dict())
        sight.fit_scale(windows.frames)
    sight.requires_grad_(False)


def feature_table(store: Store, sight: Sight, split: Split, crops: int, resident: bool) -> Tensor:
    """Return what the frozen encoders say of every row of a split, see `Sight.table`."""
    return sight.table(read_frames(store, split, resident), crops)


def begin_encoders(sight: Sight, path: Path) -> None:
    """Fill each encoder with the tensors of a file, as far as it has them.

    Raises:
        CheckpointError: the file cannot be read, or has no tensor of that name and shape.
    """
    tensors = read_tensors(path)
    for encoder in sight.encoders:
        state = encoder.state_dict()
        fitting = {name: value for name, value in tensors.items() if name in state and value.shape == state[name].shape}
        if not fitting:
            raise CheckpointError(
                f"{path} has no tensor for the encoder: expected some of {sorted(state)[:4]} …, "
                f"found {sorted(tensors)[:4]} …"
            )
        encoder.load_state_dict(fitting, strict=False)


def _sight_of(trained: str | Path, sight: Sight) -> dict[str, Tensor]:
    from lfm_policy.models.policy import LFMPolicy

    other = LFMPolicy.from_pretrained(trained, trust_code=True).sight
    if other is None or repr(other) != repr(sight) or other.size != sight.size:
        raise ConfigError(f"vision.trained={trained} has other encoders than this run, or none: expected {sight}")
    return other.state_dict()


def _train(
    settings: TrainSettings,
    vision: VisionSettings,
    policy: Any,
    model: Seeing,
    windows: Windows,
    fingerprint: dict[str, Any],
) -> Regressor:
    """Train the regression; return its moving average."""
    from lfm_policy.training.checkpoint import Checkpointer
    from lfm_policy.training.log import RunLog
    from lfm_policy.training.loop import StepReport, Trainer
    from lfm_policy.training.progress import TrainingProgress

    def losses(generator: torch.Generator) -> Iterator[Loss]:
        index = torch.randint(len(windows), (vision.batch,), generator=generator, device=generator.device)
        yield regression(policy, model.chain.blocks[0], windows, index, generator)

    def on_step(report: StepReport) -> None:
        loss, speed = report.losses[0], vision.batch / report.seconds
        progress.update(report.step, loss, speed)
        if report.step % settings.logging.every == 0 or report.step == report.total:
            values = {"loss": loss, "learning_rate": report.learning_rate, "samples_per_s": speed}
            log.log(report.step, values)

    folder, phase = Path(settings.out) / FOLDER, Phase((0,), "marginal", vision.updates)
    save = Checkpointer(folder / "checkpoint", model, fingerprint, settings.checkpoint_seconds)
    trainer = Trainer(model.chain, (phase,), vision.optimiser, settings.seed, on_step, save)
    save.resume(trainer)
    begun = time.process_time()
    logged = RunLog(
        folder, settings.model_dump(mode="json"), settings.logging, trainer.done, f"{settings.name} encoder"
    )
    with logged as log, TrainingProgress(trainer.total, trainer.done) as progress:
        trainer.optimise(0, phase, losses)
    regressor = trainer.ema.chain.blocks[0]
    assert isinstance(regressor, Regressor)
    if not (folder / "summary.json").exists():
        values = {"updates": vision.updates, "seconds": trainer.seconds, "cpu_seconds": time.process_time() - begun}
        write_json(folder / "summary.json", values | {"parameters": sum(p.numel() for p in policy.sight.parameters())})
    return regressor


def regression(policy: Any, regressor: nn.Module, windows: Windows, index: Tensor, generator: torch.Generator) -> Loss:
    """Give the mean square error of the regression on windows, at random crops of their pictures."""
    batch, device, sight = windows.gather(index), policy.device, policy.sight
    assert batch.frames is not None
    seen = sight.crop(batch.frames.to(device), generator)
    sample = policy.sample_of(batch.observation.to(device), batch.action.to(device))
    return Loss(
        regressor, seen, torch.zeros(len(index), device=device), sample.cond, -sample.x, torch.ones((), device=device)
    )
