"""The simulator starts, or says in one line why not."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.sim

PROGRAM = """
from lfm_envs.simulator import load_robosuite
from lfm_policy.errors import ConfigError

try:
    load_robosuite()
except ConfigError as error:
    print(error)
"""


def test_a_renderer_that_does_not_exist_is_one_line() -> None:
    environment = os.environ | {"MUJOCO_GL": "banana"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the simulator cannot start with the environment variable MUJOCO_GL=banana (")
    assert done.stdout.endswith("unset it, or try egl, osmesa or disabled\n")
