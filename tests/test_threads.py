"""How threads wait for each other: set before torch is loaded, unless a user has said it."""

import os
import subprocess
import sys

import pytest

SAY = "import os, ragkit, sys; print({n: os.environ.get(n) for n in %r}, 'torch' in sys.modules)"
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    "own, then",
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "10000"}, {"GOMP_SPINCOUNT": "10000"}),
    ],
)
def test_import_ragkit_lets_threads_sleep_unless_a_user_has_said_otherwise(own, then):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | own
    command = [sys.executable, "-c", SAY % (NAMES,)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{ {name: then.get(name) for name in NAMES} } False"
