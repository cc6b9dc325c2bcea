"""Restores a batch in the memory that there is: less at once, never another result."""

from __future__ import annotations

import torch
from torch import Tensor

from faithdiff.errors import RunError
from faithdiff.methods.method import Restorer


def restore_in_memory(
    restorer: Restorer, lq: Tensor, captions: list[str], seeds: list[int], title: str
) -> Tensor:
    """Call ``restorer.restore``; where memory runs out, again with half as much at once.

    First with fewer images, then with fewer tiles of an image. Restorers promise that neither
    changes a result. What was found to be too much is not tried again for later images.

    Args:
        title: What is restored, for the log.

    Raises:
        RunError: One image, as small as it can be taken, does not fit.
    """
    done: list[Tensor] = []
    while (start := sum(len(part) for part in done)) < len(captions):
        chosen = slice(start, start + restorer.batch_size)
        try:
            done.append(restorer.restore(lq[chosen], captions[chosen], seeds[chosen]))
            continue
        except (MemoryError, torch.OutOfMemoryError) as error:
            problem = str(error) or type(error).__name__
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
            raise RunError(
                f"{title}: not enough memory for one LQ image of {width} x {height} px. In the "
                "profile, restore.precision: bf16, a restore.vae_tile (e.g. 512) or a smaller "
                f"restore.tile need less; or crop the image. ({problem})"
            )
        print(f"{title}: not enough memory, goes on with {less}", flush=True)
    return torch.cat(done)
