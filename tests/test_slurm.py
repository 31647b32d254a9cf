"""A task of a SLURM step finds the others and its devices; a lone one says what it waits for."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from glow_jax.devices.processes import join_processes

REPOSITORY = Path(__file__).parents[1]
TASK = {
    "SLURM_JOB_ID": "12345",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
ALL_DEVICES = {"num_processes": 4, "local_device_ids": []}
BY_NUMBER = {"num_processes": 4}


def joined(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, object] | None:
    """What JAX is asked to join, beside the patience; None if nothing."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: asked.append(kwargs))
    for name, value in (TASK | variables).items():
        monkeypatch.setenv(name, value)
    join_processes("", 0, None)
    if not asked:
        return None
    return {name: asked[0][name] for name in asked[0] if not name.endswith(("seconds", "timeout"))}


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"])
def test_one_task_joins_nothing_and_keeps_all_gpus_of_its_node(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert joined(monkeypatch, {name: "1"}) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"SLURM_STEP_NUM_NODES": "4"}, ALL_DEVICES),
        ({"SLURM_STEP_NUM_NODES": "1"}, BY_NUMBER),
        ({"SLURM_STEP_NUM_NODES": "2"}, BY_NUMBER),
        ({}, BY_NUMBER),
        ({"SLURM_STEP_NUM_NODES": "1", "SLURM_GPUS_PER_TASK": "2"}, ALL_DEVICES),
        ({"SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0"}, ALL_DEVICES),
        ({"SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, BY_NUMBER),
        ({"SLURM_STEP_NUM_NODES": "4", "JAX_LOCAL_DEVICE_IDS": "0"}, BY_NUMBER),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4"}, BY_NUMBER),
    ],
)
def test_a_task_takes_all_devices_unless_it_shares_them(
    variables: dict[str, str], asked: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert joined(monkeypatch, variables) == asked
    assert "waiting for all 4 tasks of SLURM job 12345" in capsys.readouterr().err


def test_only_the_first_task_says_that_it_waits(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert joined(monkeypatch, {"SLURM_PROCID": "1"}) == BY_NUMBER
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"])
def test_a_shell_that_is_no_task_is_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert joined(monkeypatch, {name: ""}) == {}  # JAX finds no cluster by itself
    assert capsys.readouterr().err == ""


JOIN = """
import sys
from glow_jax.devices import processes
processes._JOINING_SECONDS = int(sys.argv[1])
processes.join_processes("", 0, None)
from jax._src import xla_bridge
print(xla_bridge.CUDA_VISIBLE_DEVICES.value)
"""


def task(seconds: int, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, str(seconds)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | TASK | variables,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_task_whose_others_never_come_says_what_it_waits_for_and_gives_up() -> None:
    output, errors = (alone := task(1)).communicate(timeout=120)
    assert alone.returncode == 2
    assert output == ""
    assert errors.splitlines() == [
        "waiting for all 4 tasks of SLURM job 12345; to train alone, start `env -u SLURM_JOB_ID "
        "python ...`",
        "error: The other processes of this run have not come within 1 s: start all of them at "
        "about the same time.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "visible"), [("2", ["all", "all"]), ("1", ["0", "1"])])
def test_jax_gives_each_task_its_devices(nodes: str, visible: list[str]) -> None:
    shared = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": nodes}
    tasks = [task(100, **shared, SLURM_PROCID=n, SLURM_LOCALID=n) for n in ("0", "1")]
    assert [one.communicate(timeout=200)[0].strip() for one in tasks] == visible
