"""A variant of FaithDiff restored otherwise: its checkpoint, with another `sampling`.

For rows beside the one of the variant itself: another start timestep, guidance or captions.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from faithdiff.config import Sampling, Section, parse
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Method, Restorer, Study
from faithdiff.restore.captions import with_captions
from faithdiff.study.plain import Json
from faithdiff.study.provenance import folder_digest
from faithdiff.train.variants import load_restorer


class SampledSettings(Section):
    """``baselines.<row>.settings``."""

    sampling: Sampling = Sampling()


class SampledVariant(Method):
    """Restores with the checkpoint of the variant that `checkpoint_of` names.

    Raises:
        ConfigError: `settings` ask for what only a design with a restored image has.
    """

    trained = True  # by the row that it takes the checkpoint of
    offloads = True

    def __init__(self, settings: dict[str, JsonValue], where: str) -> None:
        self._sampling = parse(settings, SampledSettings, where).sampling
        changed = self._sampling.model_dump(exclude_defaults=True)
        # Refused and not passed over: a row that claims a switch which does nothing would be
        # believed.
        for key in ("color_reference", "restoration_guidance"):
            if key in changed:
                raise ConfigError(
                    f"{where}.sampling.{key}: FaithDiff makes no restored image first"
                )
        if self._sampling.start_point == "restored":
            raise ConfigError(f"{where}.sampling.start_point: 'restored' is not one of noise, lq")

    def load(self, study: Study, folder: Path) -> Restorer:
        restore = self._sampling.changed(study.profile.restore)
        profile = study.profile.model_copy(update={"restore": restore})
        restorer = load_restorer(profile, study.prior_folder, folder)
        return with_captions(study, folder, self._sampling, restorer)

    def settings(self, study: Study) -> dict[str, Json]:
        restore = self._sampling.changed(study.profile.restore)
        return {
            "restore": restore.decisive(),
            "captions": self._sampling.captions,
            "prior": folder_digest(study.prior_folder),
        }
