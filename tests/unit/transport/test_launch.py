"""Launch discovery: the variables that real launchers set, nested launchers, and malformed ones."""

from __future__ import annotations

import json

import pytest

from hpcfed.errors import ConfigError
from hpcfed.transport.launch import Launch, MeetingPoint, describe, discover, first_host, meeting_point

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "1",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
BATCH = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = BATCH | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "3,1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_RESTART_COUNT": "2",
}
INTERACTIVE = STEP | {"SLURM_STEP_ID": str(0xFFFFFFFA)}
PROXY = STEP | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}  # what mpirun's own srun leaves in a rank's variables


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, Launch()),
        (TORCHRUN, Launch("torchrun", 3, 4, 1, 2, 1)),
        (OPEN_MPI, Launch("openmpi", 1, 2, 1, 2)),
        (HYDRA, Launch("mpich", 2, 3, 0, 1)),
        (STEP, Launch("slurm", 3, 4, 0, 1, 2)),
        (BATCH, Launch()),
        (INTERACTIVE, Launch()),
        (STEP | {"PMIX_RANK": "3"}, Launch("slurm", 3, 4, 0, 1, 2)),
        (STEP | {"PMI_RANK": "3", "PMI_SIZE": "4"}, Launch("slurm", 3, 4, 0, 1, 2)),
        (BATCH | TORCHRUN, Launch("torchrun", 3, 4, 1, 2, 1)),
        (PROXY | TORCHRUN, Launch("torchrun", 3, 4, 1, 2, 1)),
        (BATCH | OPEN_MPI, Launch("openmpi", 1, 2, 1, 2)),
        (PROXY | OPEN_MPI, Launch("openmpi", 1, 2, 1, 2)),
        (INTERACTIVE | OPEN_MPI, Launch("openmpi", 1, 2, 1, 2)),
        (PROXY | HYDRA, Launch("mpich", 2, 3, 0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Launch()),  # nobody says where torch's ranks meet
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Launch()),
    ],
)
def test_what_launchers_set(environ: dict[str, str], launch: Launch) -> None:
    assert discover(environ) == launch


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "one"}, "OMPI_COMM_WORLD_RANK='one'"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "-1"}, "OMPI_COMM_WORLD_RANK='-1'"),
        (HYDRA | {"PMI_RANK": "3"}, "PMI_RANK=3 and PMI_SIZE=3"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "RANK=3 and WORLD_SIZE=0"),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "3,x"}, "SLURM_STEP_TASKS_PER_NODE='3,x'"),
        (STEP | TORCHRUN | {"GROUP_WORLD_SIZE": "1"}, "slurm started torchrun 4 times,.* --nnodes=4"),
        (OPEN_MPI | TORCHRUN | {"GROUP_WORLD_SIZE": "1"}, "openmpi started torchrun 2 times"),
    ],
)
def test_what_no_launcher_would_set(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discover(environ)


def test_tasks_of_this_node() -> None:
    counts = [
        discover(STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": str(i)}).local_size for i in range(4)
    ]
    assert counts == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("vm", "vm"),
        ("a1,a2", "a1"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("n[3,5]", "n3"),
        ("rack[1-2]-node,x", "rack1-node"),
        ("", ""),
    ],
)
def test_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_where_ranks_meet() -> None:
    assert meeting_point(discover(TORCHRUN), TORCHRUN) == MeetingPoint("node1", 29500, True)
    by_hand = {name: value for name, value in TORCHRUN.items() if not name.startswith("TORCHELASTIC")}
    assert meeting_point(discover(by_hand), by_hand) == MeetingPoint("node1", 29500, False)
    slurm = meeting_point(discover(STEP), STEP, lambda host: host == "gpu07")
    assert slurm.host == "gpu07" and 10000 <= slurm.port < 30000
    assert meeting_point(discover(STEP), STEP | {"SLURM_STEP_ID": "3"}, lambda _: True).port != slurm.port
    unknown = STEP | {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    assert meeting_point(discover(unknown), unknown, lambda _: False).host == "10.0.0.7"
    one_node = STEP | {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0"}
    assert meeting_point(discover(one_node), one_node).host == "127.0.0.1"
    chosen = STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5"}
    assert meeting_point(discover(chosen), chosen) == MeetingPoint("10.0.0.1", 5, False)
    with pytest.raises(ConfigError, match=r"openmpi does not say where .* MASTER_ADDR .* torchrun"):
        meeting_point(discover(OPEN_MPI), OPEN_MPI)


def test_a_description_is_plain_and_complete() -> None:
    told = json.loads(json.dumps(describe(Launch("torchrun", 1, 2))))
    assert told["launcher"] == "torchrun" and told["ranks"] == 2 and told["versions"]["torch"]
    assert told["versions"]["numpy"].count(".") == 2
