"""The smoke study as jobs of a real Slurm on this machine, two of them killed; by hand:

    make test-cluster

Installs Debian's slurm-wlm and munge if they are missing and may be, starts munged, slurmctld and
two slurmd with files of their own in a temporary folder (no systemd, no cgroups, no service of the
machine is touched), makes the tables of the study locally and with `profiles/slurm`, ends one run
by `scancel` and another by `kill -9`, and compares the tables. What it started it ends.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import psutil

from tests.workflow.conftest import copy

STUDY = "config/smoke.yaml"
# two runs, long enough to be killed amid training
SLICE = (
    "losses=[dice_ce,generalized_dice]",
    "seeds=[1]",
    "training={steps: 150, validate_every: 10}",
)
CANCELLED, KILLED = ("dice_ce", 1), ("generalized_dice", 1)
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
# what differs between two runs of one study: when, where and how fast
NOT_COMPARED = "second|memory|share|hours|commit"
SLURM_CONF = """
ClusterName=rareclass
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# nodes that share a machine: what it has is divided between them
SlurmdParameters=config_overrides
KillWait=5
# of a machine that is busy with other things
OverTimeLimit=60
# there is no accounting, so Snakemake asks squeue, which must not forget
MinJobAge=3600
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 \
RealMemory={memory} Gres=gpu:1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 \
RealMemory={memory} Gres=gpu:1
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=60 State=UP
"""


class Skipped(Exception):
    """This machine cannot have a Slurm; the message says why."""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends this ends the daemons
    try:
        install()
    except Skipped as reason:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="rareclass-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants its socket to be reached by everybody
        with cluster(folder) as environment, contextlib.ExitStack() as stack:
            local = Call(copy(folder / "local").root, os.environ, "--cores", "2")
            stack.callback(local.process.terminate)
            say(f"local run: {local.finish():.0f} s")
            away = Call(
                copy(folder / "away").root, environment,
                "--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue",
                "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "5",
                "--max-threads", "1",
                # the nodes' GPUs are /dev/null: is one of them asked for?
                "--set-resources", "train:gpu=1",
            )  # fmt: skip
            stack.callback(away.process.terminate)
            cancel(away, environment, *CANCELLED)
            kill(away, *KILLED)
            say(f"Slurm run, two jobs killed: {away.finish():.0f} s")
            faults = [*jobs(environment), *resumed(away), *differences(local, away)]
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


def say(text: str) -> None:
    print(text, flush=True)


def install() -> None:
    """Slurm from Debian's packages, if it is not there; raises :class:`Skipped`."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        raise Skipped("the executor plugin is missing: pip install -e '.[slurm]'")
    if all(map(shutil.which, DAEMONS)):
        return
    if not shutil.which("apt-get") or os.getuid() != 0:
        raise Skipped(f"{', '.join(DAEMONS)}: not here, and only root on Debian can install them")
    for words in (["update"], ["install", "--no-install-recommends", "slurm-wlm", "munge"]):
        done = subprocess.run(
            ["apt-get", "--quiet", "--yes", *words],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Skipped(f"apt-get {words[0]}: {done.stderr.strip().splitlines()[-1]}")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm of two nodes; gives the environment in which its commands find it."""
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        SLURM_CONF.format(
            host=socket.gethostname(),
            user=getpass.getuser(),
            folder=folder,
            ports=free_ports(3),
            memory=psutil.virtual_memory().available // 2**21,
        )
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    # the executor drops SLURM_CONF in jobs, where it calls srun: that one must know by itself
    wrapper = folder / "bin" / "srun"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {shutil.which("srun")} "$@"\n')
    wrapper.chmod(0o755)
    environment = os.environ | {
        "SLURM_CONF": str(configuration),
        "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
    }
    started: list[subprocess.Popen] = []

    def start(*words: str) -> None:
        output = open(folder / "daemons.out", "a")  # noqa: SIM115, it is the daemon's
        started.append(
            subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
        )

    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder / 'munge.socket'}", f"--pid-file={folder / 'munge.pid'}",
            f"--log-file={folder / 'munge.log'}", f"--seed-file={folder / 'munge.seed'}",
        )  # fmt: skip
        wait((folder / "munge.socket").exists, "munged")
        start("slurmctld", "-D")
        for node in ("node1", "node2"):
            (folder / node).mkdir()
            start("slurmd", "-D", "-N", node)
        wait(
            lambda: (
                ask(environment, "sinfo", "--noheader", "--Node", "--format=%t").split()
                == ["idle", "idle"]
            ),
            f"two idle nodes; see {folder}/*.log",
        )
        say(f"{ask(environment, 'sinfo', '--version').strip()}, two nodes")
        yield environment
    finally:
        # jobs outlive the daemons that started them
        ask(environment, "scancel", f"--user={getpass.getuser()}")
        with contextlib.suppress(SystemExit):
            wait(lambda: not ask(environment, "squeue", "--noheader"), "an empty queue", 30)
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        end_within(folder)


def end_within(folder: Path) -> None:
    """Kills what still works below a folder: steps of a cancelled job can outlive the cluster."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(10)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(environment: Mapping[str, str], *words: str) -> str:
    return subprocess.run(words, env=environment, capture_output=True, text=True).stdout


def wait(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


class Call:
    """A call of Snakemake for the study in a copy of the project."""

    def __init__(self, root: Path, environment: Mapping[str, str], *words: str):
        self.root, self.results = root, root / "results" / "smoke"
        self.output = root / "snakemake.out"
        self.started = time.monotonic()
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "snakemake", "compare", "--configfile", STUDY, *words),
                    *("--config", *SLICE),
                ],
                cwd=root,
                env=environment | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> float:
        """Waits for the end, which must be a good one; gives the seconds."""
        if self.process.wait(1800):
            raise SystemExit(f"{self.output.read_text()}\nSnakemake failed")
        return time.monotonic() - self.started

    def wait_for_checkpoint(self, loss: str, seed: int) -> None:
        """Until this run is amid its training."""
        folder = self.results / "runs" / "phantom-smoke" / loss / "lr-0.003" / f"seed-{seed}"
        wait(lambda: (folder / "checkpoint.bin").exists() or self.process.poll() is not None,
             f"a checkpoint of {loss} seed {seed}", 900)  # fmt: skip
        if (folder / "status.json").exists() or self.process.poll() is not None:
            raise SystemExit(f"{loss} seed {seed} was over before it could be killed")

    def log(self, loss: str, seed: int) -> str:
        logs = self.results / "logs" / "train" / "phantom-smoke"
        return (logs / f"{loss}-lr-0.003-seed-{seed}.log").read_text()


def cancel(call: Call, environment: Mapping[str, str], loss: str, seed: int) -> None:
    """``scancel`` of the job of a run."""
    call.wait_for_checkpoint(loss, seed)
    for line in ask(environment, "squeue", "--noheader", "--format=%i %T %k").splitlines():
        job, state, comment = line.split(maxsplit=2)
        if state == "RUNNING" and re.match(f"rule_train_.*_{loss}_.*_{seed}$", comment):
            ask(environment, "scancel", job)
            say(f"scancel {job}: {loss} seed {seed}")
            return
    raise SystemExit(f"{loss} seed {seed}: Slurm knows no running job of it")


def kill(call: Call, loss: str, seed: int) -> None:
    """``kill -9`` of the process that trains a run."""
    call.wait_for_checkpoint(loss, seed)
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if (
            process.info["cwd"] == str(call.root)
            and words[1:4] == ["-m", "workflow", "train"]
            and words[words.index("--loss") + 1] == loss
            and words[words.index("--seed") + 1] == str(seed)
        ):
            process.kill()
            say(f"kill -9 {process.pid}: {loss} seed {seed}")
            return
    raise SystemExit(f"{loss} seed {seed}: no process trains it")


def jobs(environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the jobs that Slurm had; says what they asked for."""
    known = ask(environment, "scontrol", "--oneliner", "show", "job").splitlines()
    table = pd.DataFrame(
        [dict(word.partition("=")[::2] for word in line.split() if "=" in word) for line in known]
    )
    table["Rule"] = table["Comment"].str.extract(r"rule_([a-z_]+?)(?:_wildcards|$)")
    columns = [
        "Rule",
        "JobState",
        "NumCPUs",
        "MinMemoryNode",
        "TimeLimit",
        "TresPerJob",
        "NodeList",
    ]
    say(table.reindex(columns=columns).value_counts(dropna=False).to_string())
    train = table[table["Rule"] == "train"]
    states = train["JobState"].value_counts().to_dict()
    expected = {"COMPLETED": 2, "CANCELLED": 1, "FAILED": 1}
    if states != expected:
        yield f"jobs of runs ended as {states}, expected {expected}"
    if not train["TresPerJob"].str.contains("gpu").all():
        yield "jobs of runs did not ask Slurm for a GPU"


def resumed(call: Call) -> Iterator[str]:
    """Whether the killed runs went on at a checkpoint."""
    for loss, seed in (CANCELLED, KILLED):
        lines = [line for line in call.log(loss, seed).splitlines() if "goes on at step" in line]
        if lines:
            say(lines[0])
        else:
            yield f"{loss} seed {seed} began anew"


def differences(one: Call, other: Call) -> Iterator[str]:
    """Tables of two calls that are not the same, times and commit aside."""
    names = sorted(path.name for path in (one.results / "tables").glob("*.csv"))
    if names != sorted(path.name for path in (other.results / "tables").glob("*.csv")):
        yield "the two calls left tables of other names"
    for name in names:
        left, right = (pd.read_csv(c.results / "tables" / name) for c in (one, other))
        kept = [column for column in left if not re.search(NOT_COMPARED, column)]
        try:
            pd.testing.assert_frame_equal(left[kept], right[kept], check_exact=True)
        except (AssertionError, KeyError) as error:
            yield f"tables/{name}: {error}"
    say(f"{len(names)} tables compared: {', '.join(names)}")


if __name__ == "__main__":
    raise SystemExit(main())
