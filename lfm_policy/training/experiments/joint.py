"""Learning to see and to act at once, Diffusion Policy's way: the encoders get the gradients of all blocks.

A batch's pictures are encoded once. Blocks are computed one by one, each with the same features as its condition; what
they ask of the features is summed there, and goes through the encoders once, when the last block is done.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.memory import Windows
from lfm_policy.flow import Sample
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.sight import Sight


@dataclass(frozen=True)
class JointPool:
    """`flow.Pool` over windows with pictures, whose conditions pass gradients on to the encoders; `loop.Encoder`."""

    windows: Windows | StreamedWindows
    encoding: Encoding
    """Encodes the rest, on its device."""
    module: Sight
    """Sees, and learns."""
    _asked: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)
    """Features of the batches since the last `backward`, and what blocks were given in their place."""

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the windows at `index` (B,): x (B, T, A), cond (B, C); pictures by a random part with a generator."""
        device, sight = self.encoding.device, self.module
        batch = self.windows.gather(index.cpu() if isinstance(self.windows, StreamedWindows) else index)
        assert batch.frames is not None
        frames = batch.frames.to(device)
        part = sight.middle(frames) if generator is None else sight.crop(frames, generator)
        features = sight.scale * sight.encode(part) + sight.offset
        given = features
        if features.requires_grad:
            given = features.detach().requires_grad_()
            self._asked.append((features, given))
        return self.encoding.sample(batch.observation.to(device), batch.action.to(device), given)

    def backward(self) -> None:
        """Pass on to the encoders what the blocks' losses asked of the features."""
        for features, given in self._asked:
            if given.grad is not None:
                features.backward(given.grad)
        self._asked.clear()
