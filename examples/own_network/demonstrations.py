"""Demonstrations to train on: a point that moves to its goal."""

from lfm_envs.point_mass import CONTRACT, demonstrations
from lfm_policy.data.own import Demonstration, store_demonstrations

print(store_demonstrations("point.zarr", (Demonstration(*pair) for pair in demonstrations(100, seed=0)), CONTRACT))
