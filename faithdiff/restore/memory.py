"""Restores a batch in the memory that there is: less at once, never another result."""

from __future__ import annotations

import torch
from torch import Tensor

from faithdiff.errors import TooLargeError
from faithdiff.methods.method import Restorer

IN_PROFILE = (
    "in the profile, restore.precision: bf16, restore.vae_tile: auto or a smaller restore.tile "
    "need less"
)


def restore_in_memory(
    restorer: Restorer,
    lq: Tensor,
    captions: list[str],
    seeds: list[int],
    title: str,
    remedy: str = IN_PROFILE,
) -> Tensor:
    """Call ``restorer.restore``; where memory runs out, again with half as much at once.

    First with fewer images, then with fewer tiles of an image. Restorers promise that neither
    changes a result; smaller tiles are taken where the profile leaves their side open (`auto`).
    What was found to be too much is not tried again for later images.

    Args:
        title: What is restored, for the log.
        remedy: What needs less memory, in the words of whoever chose the settings.

    Raises:
        TooLargeError: One image, as small as it can be taken, does not fit.
    """
    done: list[Tensor] = []
    while (start := sum(len(part) for part in done)) < len(captions):
        chosen = slice(start, start + restorer.batch_size)
        try:
            done.append(restorer.restore(lq[chosen], captions[chosen], seeds[chosen]))
            continue
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            problem = str(error).partition("\n")[0] or type(error).__name__
        # Out of the handler: its traceback would keep the tensors that did not fit alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # Fewer images first, which costs the least time: a pass of one may still be full of tiles.
        if restorer.batch_size > 1:
            # Halved for good: later images of the set are likely to be as large.
            restorer.batch_size //= 2
            less: str | None = f"images at once: {restorer.batch_size} at most"
        else:
            less = restorer.save_memory()
        if less is None:
            height, width = lq.shape[2:]
            raise TooLargeError(
                f"{title}: not enough memory for one LQ image of {width} x {height} px; {remedy}; "
                f"or crop the image. ({problem})"
            )
        print(f"{title}: not enough memory, goes on with {less}", flush=True)
    return torch.cat(done)


def _is_of_memory(error: Exception) -> bool:
    # Where the CPU's memory ends, PyTorch raises a plain RuntimeError.
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)
