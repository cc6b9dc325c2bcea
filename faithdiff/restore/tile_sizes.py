"""Chooses tiles where a profile says `auto`: by the size of an image and the memory there is.

The estimates are those of docs/full-size.md: what the widest layers keep alive at once. They are
meant to be right within a factor of two, so half of the free memory is planned for. Where that was
too much after all, :meth:`TileChooser.smaller` goes on with less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from faithdiff.config import Restore
from faithdiff.models.prior import Prior
from faithdiff.restore.tiling import tiles as cut
from faithdiff.study.memory import memory

SHARE = 0.5  # of the free memory
VAE_TILES = (2048, 1024, 512, 256)  # pixels; of fewer, the seams begin to show
TRAINED = 128  # latent pixels: SDXL's size, where a UNet does not say its own
SMALLEST = 32  # latent pixels
MOST_TILES = 16  # in a pass: more of them are no faster


@dataclass(frozen=True)
class Tiles:
    """How images of one size are taken apart.

    Attributes:
        vae: Side of a tile in pixels, for the VAE and encoders like it; 0 takes images whole.
        size: Side of a tile of the UNet, latent pixels.
        stride: From tile to tile, latent pixels.
        batch: Tiles of an image in one UNet pass.
    """

    vae: int
    size: int
    stride: int
    batch: int


def free_memory(device: torch.device) -> int:
    """Bytes that a device can still give to this process."""
    if device.type != "cuda":
        return memory().free
    free, _ = torch.cuda.mem_get_info(device)
    # PyTorch keeps what it once took: that counts as used for the driver, and is free for us.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class TileChooser:
    """Chooses the tiles of each image as a profile says; numbers of the profile stay as they are.

    Args:
        config: Of the profile.
        prior: Whose VAE and UNet take the tiles.
        free: Tells the free memory of a device.
    """

    def __init__(
        self, config: Restore, prior: Prior, free: Callable[[torch.device], int] = free_memory
    ) -> None:
        self._config, self._prior, self._free = config, prior, free
        self._vae_limit = VAE_TILES[0]
        self._whole = True  # whether images may be encoded and decoded whole
        self._size_limit: int | None = None
        self._batch_limit = MOST_TILES if config.tile_batch == "auto" else config.tile_batch
        self._last: tuple[Tiles, int, int] | None = None  # and the size that they were chosen for

    def choose(self, height: int, width: int, images: int, device: torch.device) -> Tiles:
        """The tiles for results of a size in pixels, so many at once."""
        config, room = self._config, 0.0
        if "auto" in (config.vae_tile, config.tile, config.tile_batch):
            room = SHARE * (self._free(device) - self._weights_to_come(device)) / images
        vae = config.vae_tile
        if vae == "auto":
            vae = self._vae_tile(height, width, room)
        size, stride = config.tile, config.tile_stride
        if size == "auto" or stride == "auto":  # both, as the profile's check says
            size = self._tile(room)
            stride = size // 2
        batch = self._batch_limit
        if config.tile_batch == "auto":
            batch = max(1, min(batch, int(room // self._bytes_of_pair(size))))
        tiles = Tiles(vae, size, stride, batch)
        self._last = tiles, height, width
        return tiles

    def smaller(self) -> str | None:
        """Take less memory than the last choice from now on; what it is, or None if nothing is.

        Fewer tiles in a pass change no result; the sides of tiles are touched where they are
        `auto` alone.
        """
        if self._last is None:
            return None
        last, height, width = self._last
        tall, wide = (-(-side // self._prior.factor) for side in (height, width))
        # As many as there are: a lower limit above that would only restore the same once more.
        together = min(last.batch, len(cut(tall, wide, last.size, last.stride)))
        if together > 1:
            self._batch_limit = together // 2
            return f"tiles in one UNet pass: {self._batch_limit} at most"
        smaller = [each for each in VAE_TILES if each < (last.vae or max(height, width))]
        if self._config.vae_tile == "auto" and smaller:
            self._whole, self._vae_limit = False, smaller[0]
            return f"tiles of {smaller[0]} px in the VAE"
        if self._config.tile == "auto" and last.size > SMALLEST:
            self._size_limit = last.size // 2
            return f"tiles of {self._size_limit} latent pixels in the UNet"
        return None

    def _vae_tile(self, height: int, width: int, room: float) -> int:
        vae = self._prior.vae
        widths, patch = vae.config.block_out_channels, getattr(vae.config, "patch_size", 1)
        # At full resolution the decoder is widest right after its last enlargement: four tensors
        # are alive there, of as many channels as the level below has.
        per_pixel = 4 * widths[min(1, len(widths) - 1)] * vae.dtype.itemsize / patch**2
        if self._whole and height * width * per_pixel <= room:
            return 0
        fit = [s for s in VAE_TILES if s <= self._vae_limit and s * s * per_pixel <= room]
        return fit[0] if fit else VAE_TILES[-1]

    def _tile(self, room: float) -> int:
        trained = self._prior.unet.config.sample_size
        size = trained if isinstance(trained, int) else TRAINED
        # Never larger than the UNet was trained for: it would see more than it ever saw.
        while size > SMALLEST and (
            self._bytes_of_pair(size) > room or (self._size_limit or size) < size
        ):
            size //= 2
        return size

    def _bytes_of_pair(self, size: int) -> float:
        """Memory of a guidance pair of tiles: thirty tensors of the first level's width."""
        unet = self._prior.unet
        return 2.0 * size * size * 30 * unet.config.block_out_channels[0] * unet.dtype.itemsize

    def _weights_to_come(self, device: torch.device) -> int:
        """Bytes that a UNet which is offloaded will take on the device."""
        unet = self._prior.unet
        if unet.device == device or device.type == "cpu":
            return 0
        return sum(p.numel() * p.element_size() for p in unet.parameters())
