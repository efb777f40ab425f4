"""Demonstrations from a controller, through the described environment."""

import sys

import numpy as np

import lfm_envs
from lfm_policy.data.own import Demonstration, store_demonstrations


def demonstrations(count):
    """Drive the cart to its mark, with a little noise on what is executed."""
    environment, noise = lfm_envs.make("cart.yaml"), np.random.default_rng(0)
    for seed in range(count):
        observation, rows, actions, success = environment.reset(seed), [], [], False
        while not success and len(rows) < environment.horizon:
            away = observation["mark"] - observation["place"]
            action = np.clip(8 * away - 5 * observation["speed"], -2, 2)
            rows.append(observation)
            actions.append(action)
            result = environment.step(action + 0.2 * noise.standard_normal(1))
            observation, success = result.observation, result.success
        seen = {name: np.stack([row[name] for row in rows]) for name in observation}
        yield Demonstration(seen, np.stack(actions), success)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(store_demonstrations("cart.zarr", demonstrations(count), lfm_envs.contract_for("cart.yaml")))
