"""Every form of the time-first layers and of the network against torch's own layers, written plainly."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from lfm_cli.benchmarks import plain_unet1d as PLAIN
from lfm_policy.networks import ConditionalUnet1d
from lfm_policy.networks.cpu.convolution import FEW_SAMPLES, Convolution, Growth, form, fourier, time_first, time_last

SIZES = {"action_dim": 10, "cond_dim": 12, "dims": (16, 32, 64), "time_dim": 16}


def _pair(dtype: torch.dtype) -> tuple[nn.Module, ConditionalUnet1d]:
    torch.manual_seed(0)
    plain, ours = PLAIN.PlainUnet1d(**SIZES).to(dtype), ConditionalUnet1d(**SIZES).to(dtype)
    for p in plain.parameters():  # norms away from the identity
        nn.init.normal_(p, std=0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def _inputs(batch: int, dtype: torch.dtype, steps: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, cond = (torch.randn(batch, *shape, generator=generator).to(dtype) for shape in [(steps, 10), (12,)])
    return x, torch.rand(batch, generator=generator).to(dtype), cond


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, FEW_SAMPLES - 1, FEW_SAMPLES, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_outputs_and_gradients_are_those_of_the_plain_network(
    batch: int, training: bool, dtype: torch.dtype, tolerance: float
) -> None:
    plain, ours = (network.train(training) for network in _pair(dtype))
    x, t, cond = _inputs(batch, dtype)
    x, cond = x.requires_grad_(), cond.requires_grad_()
    expected, found = plain(x, t, cond), ours(x, t, cond)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t, cond), expected, atol=tolerance, rtol=tolerance)
    theirs = torch.autograd.grad(expected.square().mean(), [x, cond, *plain.parameters()])
    gradients = torch.autograd.grad(found.square().mean(), [x, cond, *ours.parameters()])
    for name, gradient, other in zip(["x", "cond", *dict(ours.named_parameters())], gradients, theirs, strict=True):
        torch.testing.assert_close(gradient, other, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("steps", [4, 8, 12])
def test_other_lengths_give_the_plain_network_too(steps: int) -> None:
    plain, ours = _pair(torch.float64)
    x, t, cond = _inputs(FEW_SAMPLES, torch.float64, steps)
    torch.testing.assert_close(ours(x, t, cond), plain(x, t, cond), atol=1e-12, rtol=1e-12)


def test_gradients_are_the_same_bits_each_time() -> None:
    _, ours = _pair(torch.float32)

    def gradients() -> list[Tensor]:
        loss = ours(*_inputs(32, torch.float32)).square().mean()
        return list(torch.autograd.grad(loss, list(ours.parameters())))

    assert all(map(torch.equal, gradients(), gradients()))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_matrices_are_a_convolution(steps: int, kernel: int) -> None:
    """Σ_p A_sp G_pk B_pt is 1 where the kernel's place k at output s meets input t, and 0 elsewhere."""
    output, weight, inputs = fourier(steps, kernel, torch.float64)
    found = torch.einsum("sp,pk,pt->skt", output, weight, inputs)
    s, k, t = torch.meshgrid(torch.arange(steps), torch.arange(kernel), torch.arange(steps), indexing="ij")
    torch.testing.assert_close(found, (t == s + k - kernel // 2).double(), atol=1e-12, rtol=0)


LAYERS = {
    "pointwise": nn.Conv1d(6, 4, 1),
    "same": nn.Conv1d(6, 4, 5, padding=2),
    "halving": nn.Conv1d(6, 4, 3, stride=2, padding=1),
    "doubling": nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1),
    "even": nn.Conv1d(6, 4, 4, padding=1),
}


@pytest.mark.parametrize("batch", [2, FEW_SAMPLES])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=list(LAYERS))
def test_layers_are_torchs_layers(layer: nn.Conv1d | nn.ConvTranspose1d, batch: int) -> None:
    layer = copy.deepcopy(layer).double()
    kind = Growth if isinstance(layer, nn.ConvTranspose1d) else Convolution
    options = {"stride": layer.stride[0], "padding": int(layer.padding[0])}
    ours = kind(layer.in_channels, layer.out_channels, layer.kernel_size[0], **options).double()
    ours.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(time_last(ours(time_first(x))), layer(x), atol=1e-12, rtol=1e-12)


def test_training_in_bf16_multiplies_channels_in_bf16_only() -> None:
    plain, ours = _pair(torch.float32)
    inputs = _inputs(64, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, theirs = ours(*inputs), plain(*inputs)
    expected = plain(*inputs)
    error, their_error = ((y.float() - expected).norm() / expected.norm() for y in (found, theirs))
    assert 1e-4 < error < 1.5 * their_error
    found.float().square().mean().backward()
    expected.square().mean().backward()
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        assert p.grad.dtype == torch.float32
        assert nn.functional.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("batch", [3, FEW_SAMPLES])
def test_functional_transforms_work(batch: int) -> None:
    """Pullbacks under vmap, as the likelihood takes them, and networks stacked with vmap."""
    plain, ours = _pair(torch.float64)
    x, t, cond = _inputs(batch, torch.float64)
    probes = torch.randn(2, *x.shape, dtype=torch.float64)
    pulls = [vjp(lambda x, net=net: net(x, t, cond), x)[1] for net in (plain, ours)]
    expected, found = (vmap(pull)(probes)[0] for pull in pulls)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    stacked = {name: torch.stack([value, 2 * value]) for name, value in ours.named_parameters()}
    both = vmap(lambda p: functional_call(ours, p, (x, t, cond)))(stacked)
    torch.testing.assert_close(both[0], plain(x, t, cond), atol=1e-10, rtol=1e-10)


def test_forward_mode_works() -> None:
    plain, ours = _pair(torch.float64)
    x, t, cond = _inputs(FEW_SAMPLES, torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13's own, on the first use of forward mode
        expected, found = (jvp(lambda x, net=net: net(x, t, cond), (x,), (x,))[1] for net in (plain, ours))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("batch", [1, 2 * FEW_SAMPLES])
def test_exported_graphs_are_torchs_convolutions(batch: int) -> None:
    plain, ours = (network.eval() for network in _pair(torch.float32))
    inputs = _inputs(batch, torch.float32)
    graph = torch.export.export(ours, inputs)
    kinds = {str(node.target) for node in graph.graph.nodes}
    assert any("conv1d" in kind for kind in kinds)
    assert not any("bmm" in kind or "im2col" in kind for kind in kinds)
    torch.testing.assert_close(graph.module()(*inputs), plain(*inputs), atol=1e-5, rtol=1e-5)


def test_forms_are_chosen_by_batch_and_purpose() -> None:
    few, many = torch.zeros(4, FEW_SAMPLES - 1, 8), torch.zeros(4, FEW_SAMPLES, 8)
    assert (form(few, True), form(many, True), form(many, False)) == ("rows", "bilinear", "torch")
    with torch.no_grad():
        assert form(many, False) == "bilinear"
    assert form(many.to("meta"), True) == "torch"
