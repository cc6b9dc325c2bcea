"""The Hugging Face hub: which host stands for it here, and the person's token for gated files.

Files come by :mod:`faithdiff.data.download` all the same: ``hf_hub_download`` checks the size of
what it received but not its hash, and knows no mirrors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Hub:
    """How the hub is reached from here.

    Attributes:
        endpoint: Address that takes the place of the hub's, such as that of a mirror.
        token: Of the person's account; sent to the endpoint and to no other host.
    """

    endpoint: str = HUB
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> Hub:
        """As ``HF_ENDPOINT``, ``HF_TOKEN`` and ``hf auth login`` say."""
        from huggingface_hub import constants, get_token

        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        return cls(os.environ.get("HF_ENDPOINT", HUB).rstrip("/") or HUB, token)

    def address(self, address: str) -> str:
        """The address to ask, by way of the endpoint where it is the hub's."""
        rest = address.removeprefix(f"{HUB}/")
        return address if rest == address else f"{self.endpoint}/{rest}"

    def authorisation(self, address: str) -> dict[str, str]:
        """The header that shows the token, for addresses of the endpoint alone."""
        if self.token and address.startswith(f"{self.endpoint}/"):
            return {"Authorization": f"Bearer {self.token}"}
        return {}

    def opens(self, address: str) -> bool:
        """Whether the token may open an address that is gated: that of a file on the hub."""
        return bool(self.token) and address.startswith(f"{HUB}/") and "/resolve/" in address

    def hint(self, address: str, status: int) -> str:
        """What to do about a refusal by the hub; empty for other answers and hosts."""
        if status not in (401, 403) or not address.startswith(f"{self.endpoint}/"):
            return ""
        page = address.partition("/resolve/")[0]
        way = (
            ""
            if self.token
            else ", then say who you are with `hf auth login` or the variable HF_TOKEN"
        )
        return f" (accept its terms at {page} with your account{way})"
