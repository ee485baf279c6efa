"""Every method of the family keeps the promises that FeedSign keeps in test_train.py, and those of its own.

One result for any launch and number of rows, also under attack and in 16 bits; killed or stopped and resumed, the same
result; an orbit that verifies and replays; private runs that nobody can foretell.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.context
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from hpcfed.orbit import load_any, read_journal
from hpcfed.privacy import total_epsilon
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from tests.support import family_checks
from tests.support.command import ok, refused
from tests.support.family_checks import DENSE, FAMILY, TINY, VARIANTS, command, family, one_run, rank, result
from tests.support.harness import free_port, mpirun, run_ranks

Result = list[Any]
Forked = multiprocessing.context.ForkServerContext
STUFFED = [
    r"direction 0: 6 votes that sum to -?\d+ cannot come from 6 voters",
    "this round's votes cannot come from 6 voters",
]


def chosen(settings: Iterable[str]) -> list[str]:
    return [part for setting in (*TINY, *settings) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def forked() -> Forked:
    """Starts processes that have imported everything: that saves 6 s of a core for each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.support.family_checks", "hpcfed.train.loop", "transformers.models.vit.modeling_vit"]
    )
    return context


def start(forked: Forked, target: Callable[..., None], rows: int, log: Path, *argv: str) -> list[Any]:
    """target(variables of the launch, log, *argv) on so many rows, as torchrun starts them, each a process."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(rows)}
    meet["LOCAL_WORLD_SIZE"] = str(rows)
    found = [meet | {"RANK": str(i), "LOCAL_RANK": str(i)} if rows > 1 else {} for i in range(rows)]
    processes = [forked.Process(target=target, args=(launched, str(log), *argv)) for launched in found]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[Any]) -> list[int]:
    """Exit statuses of processes that end by themselves; one that does not is ended here, and an error."""
    end = time.monotonic() + 120
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    assert not late
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `alone` leaves its runs."""
    return tmp_path_factory.mktemp("family")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Result]:
    """Every variant in one process: what all other launches must find."""
    found = {name: one_run(choose(Launch()), str(folder / name), VARIANTS[name]) for name in VARIANTS}
    assert all(status == "finished" and raw for _, status, _, raw in found.values())
    assert len({fingerprint for fingerprint, *_ in found.values()}) == len(VARIANTS)  # each setting did something
    return found


# --- the launch does not matter --------------------------------------------------------------------------------------


def same_everywhere(results: list[dict[str, Any]], alone: dict[str, Result], private: Iterable[str]) -> None:
    for row, found in enumerate(results):
        for name in found.keys() & VARIANTS.keys():
            assert found[name] == alone[name], f"{name} on row {row} of {len(results)}"
        for pattern, said in zip(STUFFED, found["stuffed"], strict=True):
            assert re.match(pattern, said), said
        for name in private:
            first, second = found[name]
            assert first[1:3] == second[1:3] == ["finished", 30]
            assert first[0] != second[0] and first[3] != second[3]  # the noise has no seed
            assert found[name] == results[0][name]  # but all rows learn the same


LAUNCHES: list[tuple[str, int, list[str], list[str]]] = [
    ("forked", 2, list(VARIANTS), ["central", "local"]),
    ("forked", 3, [*FAMILY, "collude", "feedsign adam"], ["central"]),
    ("mpirun", 2, ["feedsign", "zo-fedsgd", "zo-fedavg", "mezo", "fedkseed-pro", "fedavg"], []),
]


@pytest.mark.parametrize(("how", "rows", "names", "private"), LAUNCHES, ids=["2", "3", "mpirun"])
def test_the_launch_does_not_matter(
    forked: Forked, tmp_path: Path, alone: dict[str, Result], how: str, rows: int, names: list[str], private: list[str]
) -> None:
    args = [str(tmp_path), names, private]
    if how == "mpirun":
        mpirun()
        results = run_ranks(rows, family, *args, launcher="mpirun")
    else:
        argv = [family_checks.__file__, "family", str(tmp_path), json.dumps(args)]
        codes = ended(start(forked, rank, rows, tmp_path / "log", *argv))
        assert codes == [0] * rows, (tmp_path / "log").read_text()
        results = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(rows)]
    same_everywhere(results, alone, private)
    for name in private:
        for i in (1, 2):
            nothing_leaked(tmp_path / f"{name} {i}", name)
            verified(tmp_path / f"{name} {i}")


# --- orbits ----------------------------------------------------------------------------------------------------------


def verified(run: Path) -> str:
    """The fingerprint that a run's summary names and its orbit gives."""
    fingerprint = json.loads((run / "summary.json").read_text())["fingerprint"]
    said = ok("orbit", "verify", run, "--base", "digits-vit").out
    assert f"replay gives fingerprint {fingerprint}, as the run did" in said.replace("\n", " ")
    return str(fingerprint)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "fedsgd reverse" and name not in DENSE])
def test_the_orbit_is_the_model(tmp_path: Path, folder: Path, alone: dict[str, Result], name: str) -> None:
    assert verified(folder / name) == alone[name][0]
    said = ok("orbit", "replay", folder / name, "--base", "digits-vit", "--out", tmp_path / "model")
    assert alone[name][0] in said.out
    # A copy of the journal has no fingerprint of its own to lean on.
    (tmp_path / "journal").write_bytes((folder / name / "journal").read_bytes())
    assert f"replayed to {alone[name][0]}" in ok("orbit", "verify", tmp_path / "journal", "--base", "digits-vit").out


def test_an_orbit_up_to_a_round_is_a_shorter_run(tmp_path: Path, folder: Path, alone: dict[str, Result]) -> None:
    for name in ("zo-fedavg", "fedkseed-pro", "zo-fedsgd momentum"):
        short = one_run(choose(Launch()), str(tmp_path / name), [*VARIANTS[name], "rounds=2"])
        out = tmp_path / f"{name} model"
        said = ok("orbit", "replay", folder / name, "--base", "digits-vit", "--out", out, "--rounds", 2)
        assert f"fingerprint {short[0]}" in said.out.replace("\n", " "), name


def test_a_dense_run_has_no_orbit(folder: Path, alone: dict[str, Result]) -> None:
    for name in DENSE:
        files = {file.name for file in (folder / name).iterdir()}
        assert "weights.safetensors" in files and not files & {"journal", "orbit.safetensors"}
        summary = json.loads((folder / name / "summary.json").read_text())
        assert summary["orbit_bytes"] is None and summary["weights_bytes"] == len(alone[name][3]) // 2


# --- killed and resumed ----------------------------------------------------------------------------------------------


def waited(begun: Callable[[], int], rounds: int, seconds: float = 60) -> None:
    """Until begun() is so many rounds."""
    end = time.monotonic() + seconds
    while begun() < rounds:
        assert time.monotonic() < end, f"{begun()} of {rounds} rounds in {seconds} s"
        time.sleep(0.005)


def rounds_kept(run: Path) -> int:
    """Rounds that a run could go on from."""
    if (run / "weights.safetensors").exists():
        raw = (run / "weights.safetensors").read_bytes()
        table = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        return int(table["__metadata__"]["t"])
    try:
        return len(read_journal(run / "journal")[1])
    except Exception:  # not there yet, or only a part of its header
        return 0


#: Runs that will be killed evaluate after every round. That takes time and changes nothing.
SLOW = ["eval_every=1", "eval_batch=1"]


def signalled(forked: Forked, rows: int, run: Path, settings: Iterable[str], number: int, who: int) -> list[int]:
    """A signal to one row of a run after its first round; exit statuses of all."""
    argv = ["train", "digits", *chosen([*settings, *SLOW]), "--out", str(run)]
    started = start(forked, command, rows, Path(f"{run}.log"), *argv)
    try:
        waited(lambda: rounds_kept(run), 1)
    finally:
        os.kill(started[who].pid, number)
        codes = ended(started)
    return codes


def killed(forked: Forked, run: Path, name: str, rows: int = 1, who: int = 0) -> None:
    """A run that SIGKILL ended after its first round and before its last."""
    codes = signalled(forked, rows, run, VARIANTS[name], signal.SIGKILL, who)
    said = Path(f"{run}.log").read_text()
    assert codes[who] == -signal.SIGKILL and all(codes) and not (run / "summary.json").exists(), said
    assert 1 <= rounds_kept(run) < 3, said


def goes_on(run: Path, name: str, alone: dict[str, Result]) -> None:
    """In this process, to the undisturbed end."""
    kept = rounds_kept(run)
    said = ok("train", "digits", *chosen(VARIANTS[name]), "--out", run, "--resume")
    assert f"resumed after round {kept}" in said.err
    summary = json.loads((run / "summary.json").read_text())
    assert [summary["fingerprint"], summary["status"], summary["rounds"], result(run)] == alone[name]


@pytest.mark.parametrize(
    "name", [name for name in FAMILY if name != "feedsign"] + ["zo-fedsgd momentum", "fedkseed bf16"]
)
def test_killed_and_resumed(forked: Forked, tmp_path: Path, alone: dict[str, Result], name: str) -> None:
    killed(forked, tmp_path / "run", name)
    goes_on(tmp_path / "run", name, alone)


@pytest.mark.parametrize("name", ["fedkseed", "fedavg"])
def test_one_of_two_rows_killed(forked: Forked, tmp_path: Path, alone: dict[str, Result], name: str) -> None:
    killed(forked, tmp_path / "run", name, rows=2, who=1)
    goes_on(tmp_path / "run", name, alone)


@pytest.mark.parametrize("name", ["zo-fedsgd", "fedkseed-pro", "fedavg"])
def test_stopped_and_resumed(forked: Forked, tmp_path: Path, alone: dict[str, Result], name: str) -> None:
    run = tmp_path / "run"
    assert signalled(forked, 1, run, VARIANTS[name], signal.SIGTERM, 0) == [0]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted" and 1 <= summary["rounds"] == rounds_kept(run) < 3
    assert "go on with --resume" in Path(f"{run}.log").read_text()
    goes_on(run, name, alone)


# --- private runs ----------------------------------------------------------------------------------------------------


def nothing_leaked(run: Path, mechanism: str) -> None:
    """What a private run leaves behind tells nothing of a client but through bits that were made private."""
    header, decisions, _ = read_journal(run / "journal")
    assert header.payload == "signs" and header.directions == header.round_bytes == 1
    assert {decision[0] for decision in decisions} <= {0, 1}  # one bit a round
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rounds = [record for record in losses if "split" not in record]
    assert len(rounds) == len(decisions)
    told = {"t", "loss", "uplink_bits_per_client", "downlink_bits_per_client", "payload_bytes", "collectives"}
    told |= {"wire_payload_bytes", "seconds"}
    if mechanism == "local":  # sums of votes that were flipped at their clients
        told |= {"agreement", "sums"}
    assert all(record.keys() == told and record["loss"] is None for record in rounds)
    summary = json.loads((run / "summary.json").read_text())
    assert not {"sums", "agreement", "abstained", "sign_error"} & summary.keys()
    assert summary["privacy"]["epsilon"] <= 0.05 * 30 and summary["privacy"]["votes_of_one_client"] == 30


FEW = ["rounds=60", 'algorithm.train_only=["classifier.*"]', "privacy.delta=1e-5"]


@pytest.mark.parametrize("share", ["1.0", "0.5"])
@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_the_budget_is_never_overspent(tmp_path: Path, mechanism: str, share: str) -> None:
    private = [
        f"privacy.mechanism={mechanism}",
        "privacy.epsilon=0.3",
        "privacy.budget=2",
        f"clients.per_round={share}",
    ]
    _, status, rounds, orbit = one_run(choose(Launch()), str(tmp_path / "run"), [*FEW, *private])
    assert status == "budget spent" and orbit and load_any(tmp_path / "run" / "orbit.safetensors").rounds == rounds < 60
    spent = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert spent["epsilon"] <= 2 < total_epsilon(0.3, spent["votes_of_one_client"] + 1, 1e-5)
    votes = spent["votes_of_one_client"]
    assert votes == rounds if share == "1.0" else votes < rounds <= 2 * votes
    verified(tmp_path / "run")
    assert "finished" in refused("train", "digits", *chosen([*FEW, *private]), "--out", tmp_path / "run", "--resume")


def test_a_resumed_run_remembers_what_it_spent(forked: Forked, tmp_path: Path) -> None:
    private = [*FEW, "privacy.mechanism=central", "privacy.epsilon=0.3", "privacy.budget=2"]
    whole = one_run(choose(Launch()), str(tmp_path / "whole"), private)
    run = tmp_path / "run"
    codes = signalled(forked, 1, run, private, signal.SIGKILL, 0)
    assert codes == [-signal.SIGKILL] and 1 <= rounds_kept(run) < whole[2]
    ok("train", "digits", *chosen(private), "--out", run, "--resume", "--quiet")
    summary = json.loads((run / "summary.json").read_text())
    # The round in flight may have been told to a row that is gone: it is paid for, though it is not on record.
    assert summary["status"] == whole[1] == "budget spent" and summary["rounds"] == whole[2] - 1
    assert summary["privacy"]["votes_of_one_client"] == whole[2] and summary["privacy"]["epsilon"] <= 2
    verified(run)


def test_a_run_killed_at_the_end_of_its_budget(tmp_path: Path) -> None:
    private = [*FEW, "privacy.mechanism=local", "privacy.epsilon=0.3", "privacy.budget=2"]
    whole = one_run(choose(Launch()), str(tmp_path), private)
    for name in ("summary.json", "orbit.safetensors"):
        (tmp_path / name).unlink()
    assert one_run(choose(Launch()), str(tmp_path), private, resume=True) == whole
    assert json.loads((tmp_path / "summary.json").read_text())["privacy"]["epsilon"] <= 2


def test_no_budget_for_a_single_round(tmp_path: Path) -> None:
    private = [*FEW, "privacy.mechanism=local", "privacy.epsilon=3", "privacy.budget=2"]
    said = refused("train", "digits", *chosen(private), "--out", tmp_path / "run")
    assert "privacy.budget=2" in said and "privacy.epsilon" in said


# --- attackers -------------------------------------------------------------------------------------------------------


def losses(run: Path) -> list[float]:
    summary = json.loads((run / "summary.json").read_text())
    return [summary["loss_before"], summary["loss_after"]]


def test_one_liar_in_five_does_not_stop_the_learning(tmp_path: Path) -> None:
    many = ["rounds=150", "clients.count=5", "clients.partition=iid", "attack.kind=reverse"]
    for attackers in (1, 5):
        one_run(choose(Launch()), str(tmp_path / str(attackers)), [*many, f"attack.clients={attackers}"])
    before, after = losses(tmp_path / "1")
    assert after < 0.9 * before
    before, after = losses(tmp_path / "5")  # they are what they seem: five of five make it worse
    assert after > before


def test_a_stuffed_box_ends_the_command(forked: Forked, tmp_path: Path) -> None:
    more = chosen(["attack.kind=stuff", "attack.clients=[5]"])
    argv = ["train", "digits", *more, "--out", str(tmp_path / "run")]
    assert ended(start(forked, command, 2, tmp_path / "log", *argv)) == [1, 1]
    said = (tmp_path / "log").read_text()
    assert said.count("a row stuffed the ballot box") == 1 and "Traceback" not in said, said
    assert read_journal(tmp_path / "run" / "journal")[1] == []  # nothing was decided by it
