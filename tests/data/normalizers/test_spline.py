import numpy as np
import pytest
import torch

from lfm_policy.data.normalizers.spline import Spline


def _spline() -> Spline:
    x = np.array([-2.0, -0.5, 0.0, 1.5, 2.0])
    return Spline.through(x, np.array([-3.0, -2.5, 0.0, 0.2, 4.0]))


def test_passes_through_its_points_and_increases() -> None:
    spline = _spline()
    y, _ = spline.forward(spline.x)
    torch.testing.assert_close(y, spline.y)
    y, slope = spline.forward(torch.linspace(-4, 4, 2001).double())
    assert (y.diff() > 0).all()
    assert (slope > 0).all()


def test_derivative_and_inverse() -> None:
    spline, x = _spline(), torch.linspace(-5, 5, 997).double().requires_grad_()
    y, slope = spline.forward(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, gradient)
    torch.testing.assert_close(spline.inverse(y.detach()), x.detach(), atol=1e-9, rtol=1e-9)


def test_straight_outside() -> None:
    spline = _spline()
    y, slope = spline.forward(torch.tensor([-2.0, -4.0, 2.0, 5.0]).double())
    torch.testing.assert_close(y, torch.tensor([-3.0, -3 - 2 / 3, 4.0, 4 + 3 * 7.6]).double())
    torch.testing.assert_close(slope, torch.tensor([1 / 3, 1 / 3, 7.6, 7.6]).double())


def test_refuses_points_that_do_not_increase() -> None:
    with pytest.raises(ValueError, match="increase strictly"):
        Spline.through(np.array([0.0, 1.0, 1.0]), np.arange(3.0))
    with pytest.raises(ValueError, match="finite"):
        Spline.through(np.array([-np.inf, 0.0, 1.0]), np.arange(3.0))
