import copy

import pytest
import torch
from safetensors.torch import load_model, save_model

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import ContractError, DataError

SAMPLES = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-2, 1.0, 30.0, 0.0]) + 2

FITS = {
    "standard": AffineNormalizer.standard,
    "scalar": AffineNormalizer.scalar,
    "min_max": AffineNormalizer.min_max,
    "some_columns": lambda x: AffineNormalizer.min_max(x, columns=[0, 2]),
    "identity": lambda x: AffineNormalizer.identity(x.shape[1]),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_round_trip(fit):
    normalizer = fit(SAMPLES)
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(SAMPLES)), SAMPLES, rtol=1e-5, atol=1e-5)
    batch = SAMPLES.reshape(50, 10, 4)
    assert torch.equal(normalizer.normalize(batch), normalizer.normalize(SAMPLES).reshape(50, 10, 4))


def test_standard_has_zero_mean_and_unit_variance_and_centres_constants():
    x = AffineNormalizer.standard(SAMPLES).normalize(SAMPLES)
    torch.testing.assert_close(x.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_standard_ignores_scale_and_shift_of_the_data():
    affine = SAMPLES * torch.tensor([3.0, 0.1, 2.0, 1.0]) - 7
    torch.testing.assert_close(
        AffineNormalizer.standard(SAMPLES).normalize(SAMPLES),
        AffineNormalizer.standard(affine).normalize(affine),
        atol=1e-3,
        rtol=0,
    )


def test_scalar_keeps_directions():
    normalizer = AffineNormalizer.scalar(SAMPLES)
    assert normalizer.normalize(SAMPLES).abs().max() == pytest.approx(1)
    assert len(normalizer.scale.unique()) == 1
    assert not normalizer.offset.any()


def test_min_max_fills_the_interval_on_its_columns_only():
    x = AffineNormalizer.min_max(SAMPLES, columns=[0, 2, 3]).normalize(SAMPLES)
    torch.testing.assert_close(x.amin(0)[[0, 2]], torch.full((2,), -1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.amax(0)[[0, 2]], torch.full((2,), 1.0), atol=1e-4, rtol=0)
    assert torch.equal(x[:, 1], SAMPLES[:, 1])
    torch.testing.assert_close(x[:, 3], torch.zeros(500))


def test_each_step_can_have_statistics_of_its_own():
    chunks = torch.randn(100, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [5.0], [9.0]])
    normalizer = AffineNormalizer.standard(chunks.flatten(1), columns=[0, 2, 4]).unflatten(3, 2)
    x = normalizer.normalize(chunks)
    torch.testing.assert_close(x[..., 0].std(0, correction=0), torch.ones(3))
    assert torch.equal(x[..., 1], chunks[..., 1])
    torch.testing.assert_close(normalizer.denormalize(x), chunks)
    with pytest.raises(ContractError, match=r"shape \(3, 2\), found \(100, 2, 2\)"):
        normalizer.normalize(chunks[:, :2])


def test_unfitted_is_an_error_even_after_loading():
    normalizer = AffineNormalizer(4)
    for use in (normalizer.normalize, normalizer.denormalize):
        with pytest.raises(ContractError, match="lost"):
            use(SAMPLES)
    other = AffineNormalizer.identity(4)
    other.load_state_dict(normalizer.state_dict())
    with pytest.raises(ContractError, match="lost"):
        other.normalize(SAMPLES)


def test_travels_with_the_weights(tmp_path):
    policy = torch.nn.ModuleDict({"norm": AffineNormalizer.standard(SAMPLES), "net": torch.nn.Linear(4, 2)})
    save_model(policy, str(tmp_path / "m.safetensors"))
    loaded = torch.nn.ModuleDict({"norm": AffineNormalizer(4), "net": torch.nn.Linear(4, 2)})
    load_model(loaded, str(tmp_path / "m.safetensors"))
    assert torch.equal(loaded["norm"].normalize(SAMPLES), policy["norm"].normalize(SAMPLES))
    copied = copy.deepcopy(loaded["norm"])
    copied.load_state_dict(AffineNormalizer(4).state_dict())
    with pytest.raises(ContractError, match="lost"):
        copied.normalize(SAMPLES)
    assert loaded["norm"].fitted


@pytest.mark.parametrize(
    ("samples", "message"),
    [(torch.zeros(0, 3), "S > 0"), (torch.zeros(3), r"\(S, D\)"), (torch.tensor([[0.0, torch.nan]]), r"columns \[1\]")],
)
def test_bad_samples_are_named(samples, message):
    with pytest.raises(DataError, match=message):
        AffineNormalizer.standard(samples)


def test_wrong_width_is_named():
    with pytest.raises(ContractError, match=r"shape \(4,\), found \(2, 5\)"):
        AffineNormalizer.identity(4).normalize(torch.zeros(2, 5))
