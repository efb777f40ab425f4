import pytest
import torch

from lfm_policy.networks.vision import ResNet18, SmallEncoder, SpatialSoftmax


def test_spatial_softmax_tells_where_a_map_is_high():
    maps = torch.full((1, 3, 5, 9), -100.0)
    for k, (row, column) in enumerate([(0, 0), (2, 4), (4, 6)]):
        maps[0, k, row, column] = 100.0
    torch.testing.assert_close(SpatialSoftmax()(maps)[0], torch.tensor([-1.0, 0.0, 0.5, -1.0, 0.0, 1.0]))
    flat = SpatialSoftmax()(torch.ones(2, 3, 5, 9))
    torch.testing.assert_close(flat, torch.zeros(2, 6))


def test_what_moves_in_the_picture_moves_the_point():
    """By two strides, from one place in the middle to another: the maps are the same, elsewhere."""
    torch.manual_seed(0)
    layers = SmallEncoder(stride=2).layers
    convolutions = layers[:-2]
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 24:32, 24:32] = 1.0
    before, after = convolutions(picture), convolutions(picture.roll(8, dims=3))
    torch.testing.assert_close(before.roll(2, dims=3)[..., 4:12, 4:12], after[..., 4:12, 4:12])


@pytest.mark.parametrize(("encoder", "millions"), [(SmallEncoder(), 0.0205), (ResNet18(), 11.2)])
def test_encoders_give_features_of_any_size_of_picture(encoder, millions):
    for side in (58, 76):
        assert encoder(torch.zeros(2, 3, side, side)).shape == (2, 64)
    count = sum(p.numel() for p in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)
