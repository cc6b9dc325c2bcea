"""The study's configuration: one YAML file per profile, checked before anything runs.

A misspelt key or a value out of range stops with the file, the path of the field and what is
allowed. Sections are immutable; what a rule reads is hashed by section (:func:`digest`), so a
change in one section reruns only the rules that read it.
"""

from faithdiff.config.data import (
    MIN_SIDE,
    REAL,
    Crops,
    Data,
    Dataset,
    FolderSet,
    MixtureSet,
    PhotoSet,
    Quality,
    SceneSet,
)
from faithdiff.config.loading import (
    load_profile,
    load_yaml,
    parse,
)
from faithdiff.config.methods import (
    AnyBaseline,
    Baseline,
    Curve,
    OwnCommand,
    OwnOutputs,
    Restore,
    Sampling,
    Unit,
    Variant,
)
from faithdiff.config.models import (
    AlignmentSettings,
    Captioner,
    Optimiser,
    PriorSettings,
    PriorTraining,
    Stage1,
    TextEncoder,
    Unet,
    UnetTraining,
    Vae,
    VaeTraining,
)
from faithdiff.config.profile import (
    Profile,
    ReportSettings,
    Score,
)
from faithdiff.config.section import (
    Group,
    Name,
    Natural,
    Positive,
    Probability,
    Rate,
    Scale,
    Section,
    digest,
)
from faithdiff.config.training import (
    OPERATIONAL,
    HeldOut,
    LearningRates,
    Phase,
    Training,
)

__all__ = [
    "MIN_SIDE",
    "OPERATIONAL",
    "REAL",
    "AlignmentSettings",
    "AnyBaseline",
    "Baseline",
    "Captioner",
    "Crops",
    "Curve",
    "Data",
    "Dataset",
    "FolderSet",
    "Group",
    "HeldOut",
    "LearningRates",
    "MixtureSet",
    "Name",
    "Natural",
    "Optimiser",
    "OwnCommand",
    "OwnOutputs",
    "Phase",
    "PhotoSet",
    "Positive",
    "PriorSettings",
    "PriorTraining",
    "Probability",
    "Profile",
    "Quality",
    "Rate",
    "ReportSettings",
    "Restore",
    "Sampling",
    "Scale",
    "SceneSet",
    "Score",
    "Section",
    "Stage1",
    "TextEncoder",
    "Training",
    "Unet",
    "UnetTraining",
    "Unit",
    "Vae",
    "VaeTraining",
    "Variant",
    "digest",
    "load_profile",
    "load_yaml",
    "parse",
]
