"""A real Slurm of one machine, in a folder of its own, and the study of the profile `test` on it.

    python tests/workflow/one_machine.py FOLDER

starts munge, slurmctld and slurmd with two pretended GPUs, runs the study through
`snakemake --workflow-profile profiles/slurm` and again without a cluster, cancels one job on its
way, compares what came out, and takes the daemons down. It needs root and Debian's slurm-wlm and
munge.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.whole import SCORES, copy_suite

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
INSTALL = "apt-get install -y --no-install-recommends slurm-wlm munge"
CANCELLED = "rule_train_variant_wildcards_"  # the comment of the job that is cancelled, so far
HOUR = 3600

CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SwitchType=switch/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=7200
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here, and what to do about it; None if it can."""
    os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/sbin", "/sbin"))
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)} on this machine: {INSTALL}"
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root, and this is another user"
    return None


@dataclass(frozen=True)
class Job:
    """What Slurm remembers of a job."""

    number: int
    comment: str  # the rule and its wildcards
    state: str
    memory: str
    limit: str  # of its time
    gpus: str


class Slurm:
    """A running Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def ask(self, *command: str) -> str:
        """Output of one of its commands."""
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{self.logs()}")
        return done.stdout

    def jobs(self) -> list[Job]:
        """All jobs since its start."""
        found = []
        for line in self.ask("scontrol", "--oneliner", "show", "job").splitlines():
            said = dict(re.findall(r"(\w+)=(\S+)", line))
            if "JobId" in said:  # not so where there is no job yet
                found.append(
                    Job(
                        number=int(said["JobId"]),
                        comment=said["Comment"],
                        state=said["JobState"],
                        memory=said["MinMemoryNode"],
                        limit=said["TimeLimit"],
                        gpus=said.get("TresPerJob", ""),
                    )
                )
        return found

    def logs(self) -> str:
        """The last words of the daemons."""
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}"
            for file in sorted(self.folder.glob("*.log"))
        )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _write_settings(folder: Path) -> None:
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    control, daemon = _free_ports(2)
    text = CONF.format(
        host=host,
        control=control,
        daemon=daemon,
        folder=folder,
        cpus=os.cpu_count(),
        memory=int(0.9 * memory),
    )
    (folder / "slurm.conf").write_text(text)
    for number in (0, 1):
        (folder / f"gpu{number}").touch()  # stands for a device file
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # Snakemake's job step takes SLURM_CONF from the environment of srun, which must find it again.
    wrapper = folder / "bin" / "srun"
    wrapper.write_text(
        f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
    )
    wrapper.chmod(0o755)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Slurm while the block runs; its daemons and jobs are gone afterwards."""
    folder.mkdir(parents=True)
    _write_settings(folder)
    found = Slurm(folder)
    munge = ("--foreground", "--force", f"--key-file={folder}/munge.key")
    munge += (f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid")
    munge += (f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed")
    conf = f"{folder}/slurm.conf"
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for name, *options in (
            ("munged", *munge),
            ("slurmctld", "-D", "-f", conf),
            ("slurmd", "-D", "-f", conf),
        ):
            with (folder / f"{name}.out.log").open("wb") as log:
                daemons.append(
                    subprocess.Popen(
                        [name, *options], stdout=log, stderr=log, env=found.environment
                    )
                )
            if name == "munged":
                wait(found, (folder / "munge.socket").exists)
        wait(found, lambda: "idle" in found.ask("sinfo", "--noheader", "-o", "%T"))
        yield found
    finally:
        if len(daemons) == 3 and all(daemon.poll() is None for daemon in daemons):
            _end_jobs(found)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=60)


def wait(found: Slurm, ready: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until Slurm has come so far; what does not answer yet is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise RuntimeError(f"Slurm did not come so far in {seconds} s\n{found.logs()}")
        time.sleep(0.5)


def _end_jobs(found: Slurm) -> None:
    running = [job for job in found.jobs() if job.state in ("RUNNING", "PENDING", "COMPLETING")]
    if running:
        found.ask("scancel", *(str(job.number) for job in running))
        time.sleep(5)


def _start(folder: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    scripts = Path(sys.executable).parent
    environment = {
        **environment,
        "PATH": f"{scripts}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "-m", "snakemake", *options, "--config", "profile=test"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=(folder / "snakemake.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str], folder: Path) -> str:
    try:
        code = process.wait(timeout=HOUR)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = (folder / "snakemake.log").read_text()
    if code != 0:
        raise RuntimeError(f"snakemake in {folder} ended with {code}:\n{said[-6000:]}")
    return said


def few_methods(folder: Path) -> Path:
    """Leave one method for each rule: every job of a cluster starts Snakemake thrice."""
    file = folder / "config" / "test.yaml"
    profile = yaml.safe_load(file.read_text(encoding="utf-8"))
    absent = ("realesrgan-x4plus", "realesrgan", "supir", "supir-own", "seesr")
    profile["baselines"] |= dict.fromkeys(absent)
    profile["variants"] |= dict.fromkeys(("separate", "features-8ch"))
    profile["recipes"] |= {"moments": None}
    profile["report"] |= {"main": ["bicubic", "diffbir", "faithdiff"], "ablation": ["faithdiff"]}
    file.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return folder


def run_here(folder: Path) -> str:
    """The study without a cluster."""
    return _finish(_start(folder, dict(os.environ), "--cores", "2"), folder)


# For one machine: look for ended jobs at once, and pretend that bicubic needs a GPU.
HASTE = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5")
PRETEND = ("--set-resources", "restore_baseline:gpu=1")


def run_on(cluster: Slurm, folder: Path) -> tuple[str, Job]:
    """The study through sbatch; the first training of a variant is cancelled on its way.

    Returns:
        What Snakemake said, and the job that was cancelled.
    """
    options = ("--workflow-profile", "profiles/slurm", *HASTE, *PRETEND)
    process = _start(folder, cluster.environment, *options)
    cancelled = None
    while process.poll() is None and cancelled is None:
        time.sleep(2)
        for job in cluster.jobs():
            if job.comment.startswith(CANCELLED) and job.state == "RUNNING":
                cluster.ask("scancel", str(job.number))
                cancelled = job
                break
    said = _finish(process, folder)
    if cancelled is None:
        raise RuntimeError("no training was seen running, so none was cancelled")
    return said, cancelled


def check(cluster: Slurm, said: str, cancelled: Job, there: Path, here: Path) -> list[str]:
    """What is wrong with a study that went through a cluster; empty if nothing is."""
    wrong: list[str] = []

    def expect(holds: bool, otherwise: str) -> None:
        if not holds:
            wrong.append(otherwise)

    jobs = cluster.jobs()
    submitted = {int(n) for n in re.findall(r"submitted with SLURM jobid (\d+)", said)}
    counts = re.findall(r"^(\w+) +(\d+)$", said.partition("Job stats:")[2], re.MULTILINE)
    planned = {rule: int(number) for rule, number in counts[: _total(counts) + 1]}
    local = re.findall(r"^localrule (\w+):", said, re.MULTILINE)
    expected = planned["total"] - len(local) + 1  # one was cancelled and sent again
    expect(len(submitted) == expected, f"{expected} jobs expected, {len(submitted)} submitted")
    expect({job.number for job in jobs} == submitted, "Slurm knows other jobs than Snakemake sent")
    bad = [j for j in jobs if j.state != "COMPLETED" and j.number != cancelled.number]
    expect(not bad, f"not completed: {bad}")
    again = [job for job in jobs if job.comment == cancelled.comment]
    expect(
        [(job.memory, job.limit) for job in again]
        == [("4000M", "00:30:00"), ("8000M", "01:00:00")],
        f"the cancelled job was not sent again with twice the memory and time: {again}",
    )
    bicubic = [job for job in jobs if job.comment.startswith("rule_restore_baseline")]
    expect(all("gpu:1" in job.gpus for job in bicubic), f"no GPU was asked for: {bicubic}")
    others = [job for job in jobs if job not in bicubic]
    expect(all("gpu" not in job.gpus for job in others), "a GPU was asked for that none needs")
    same = (there / SCORES).read_bytes() == (here / SCORES).read_bytes()
    expect(same, f"{SCORES} differs between the cluster and this machine")
    for name in ("manifest.json", "report/index.html", "tables/main.md"):
        expect((there / "results/test" / name).is_file(), f"results/test/{name} is missing")
    return wrong


def _total(counts: list[tuple[str, str]]) -> int:
    return [rule for rule, _ in counts].index("total")


def main(folder: Path) -> int:
    """Both runs and their comparison, said on the way."""
    reason = missing()
    if reason is not None:
        print(f"NOT RUN: {reason}", file=sys.stderr)
        return 77  # "skipped", by convention of automake
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with slurm(folder / "slurm") as cluster:
        begun = time.monotonic()
        there = few_methods(copy_suite(folder / "there"))
        said, cancelled = run_on(cluster, there)
        print(f"through sbatch: {time.monotonic() - begun:.0f} s")
        for job in cluster.jobs():
            asked = f"{job.memory:>6} {job.limit:>8} {job.gpus:14}"
            print(f"{job.number:4} {job.state:10} {asked} {job.comment}")
        begun = time.monotonic()
        here = few_methods(copy_suite(folder / "here"))
        run_here(here)
        print(f"here: {time.monotonic() - begun:.0f} s")
        wrong = check(cluster, said, cancelled, there, here)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    print("the same scores.csv, byte for byte" if not wrong else "FAILED")
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="one that is not there yet")
    sys.exit(main(parser.parse_args().folder.resolve()))
