"""What this machine has that a study may need: cards, driver, torch, memory, disk, network."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from faithdiff.study.gpus import visible
from faithdiff.study.memory import memory

_FIELDS = "index,uuid,name,memory.total,driver_version,compute_cap"
_PATIENCE = 3.0  # seconds for a host to take a connection


@dataclass(frozen=True)
class Gpu:
    """A card that jobs may use; zero and empty where its driver does not say."""

    name: str
    gib: float = 0.0
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """A machine as it is now.

    Attributes:
        driver: Version of NVIDIA's driver; empty where there is none.
        torch: Version of torch.
        cuda: CUDA version that torch was built for; empty for a build without.
        works: Whether torch can compute on a card here.
        kernels: What torch was compiled for, such as ``sm_90``; ``compute_90`` can be compiled on.
        memory_gib: That this process may take, which a container or a queue may limit.
    """

    gpus: tuple[Gpu, ...]
    driver: str
    torch: str
    cuda: str
    works: bool
    kernels: tuple[str, ...]
    memory_gib: float
    free_gb: float

    @classmethod
    def look(cls) -> Machine:
        """This machine, with the disk of the working folder."""
        import torch

        listed = _listed()
        found = [next((r for r in listed if name in r[:2]), None) for name in visible()]
        gpus = tuple(
            Gpu(row[2], float(row[3]) / 1024, _capability(row[5])) if row else Gpu("part of a card")
            for row in found
        )
        return cls(
            gpus,
            listed[0][4] if listed else "",
            torch.__version__,
            torch.version.cuda or "",
            torch.cuda.is_available(),
            tuple(torch.cuda.get_arch_list()),
            memory().total / 2**30,
            shutil.disk_usage(Path()).free / 1e9,
        )

    def runs_on(self, gpu: Gpu) -> bool:
        """Whether torch has kernels for a card, or can compile some for it."""
        if gpu.capability is None or not self.kernels:
            return True  # not known: torch itself will say
        major, minor = gpu.capability
        compiled = [name.rpartition("_")[2].rstrip("af") for name in self.kernels]
        return any(
            (kind.startswith("sm") and int(number[:-1]) == major and int(number[-1]) <= minor)
            or (kind.startswith("compute") and int(number) <= 10 * major + minor)
            for kind, number in zip(self.kernels, compiled, strict=True)
        )


def unreachable(addresses: Iterable[str]) -> list[str]:
    """Hosts of these addresses that take no connection from here."""
    hosts = sorted({(urlsplit(a).hostname or "", urlsplit(a).port or 443) for a in addresses})

    def refuses(host: tuple[str, int]) -> bool:
        try:
            socket.create_connection(host, timeout=_PATIENCE).close()
        except OSError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        return [
            host for (host, _), dead in zip(hosts, pool.map(refuses, hosts), strict=True) if dead
        ]


def _listed() -> list[list[str]]:
    """A row of `_FIELDS` for each card of the machine."""
    asked = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[each.strip() for each in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(_FIELDS.split(","))]


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
