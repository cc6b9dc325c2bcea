"""LLaVA in several processes, one for each GPU: together they answer as one of them would."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from faithdiff.config import Captioner
from faithdiff.models.captioner import Llava

_model: Llava | None = None  # of this process


class SeveralLlavas:
    """In place of :class:`Llava`, with the same arguments; `config.processes` of them."""

    def __init__(self, config: Captioner, device: str, master_seed: int, clean: bool) -> None:
        # A pool of one for each: so each process has a GPU of its own.
        spawn = get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, spawn) for _ in range(config.processes)]
        devices = [f"cuda:{n}" if device == "cuda" else device for n in range(config.processes)]
        # A task and not the pool's initializer, which would keep to itself what is wrong.
        started = [
            pool.submit(_start, config, place, master_seed, clean)
            for pool, place in zip(self._pools, devices, strict=True)
        ]
        for each in started:
            each.result()

    def __call__(self, files: list[Path]) -> list[str]:
        """The answers of images, dealt to the processes in parts."""
        size = -(-len(files) // len(self._pools))
        parts = [files[start : start + size] for start in range(0, len(files), size)]
        answers = [
            pool.submit(_answer, part) for pool, part in zip(self._pools, parts, strict=False)
        ]
        return [answer for part in answers for answer in part.result()]


def _start(config: Captioner, device: str, master_seed: int, clean: bool) -> None:
    global _model
    _model = Llava(config, device, master_seed, clean)


def _answer(files: list[Path]) -> list[str]:
    assert _model is not None
    return _model(files)
