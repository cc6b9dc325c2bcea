"""The exceptions of the suite.

    FaithDiffError            base class; never raised itself
    ├── UserError             something the caller can mend: a config, a file, a flag (exit code 2)
    │   ├── ConfigError       a YAML file that does not fit its schema
    │   ├── ImageError        an image that cannot be read or written
    │   └── CheckpointError   weights that are missing, truncated or of another shape
    ├── RunError              a run that began well and failed: NaN loss, full disk (exit code 1)
    │   ├── NotFiniteError       a network gave NaN for one image; others may be fine
    │   ├── CorruptedError       a file is not what was recorded when it was written
    │   └── TooLargeError        an image needs more memory than there is; others may not
    └── Paused                stopped early as asked, to be called again (exit code 75)

Messages say what is wrong, where (file and field), and what to do next; the CLI prints them
without a traceback.
"""

from __future__ import annotations

from pathlib import Path


class FaithDiffError(Exception):
    """Base class of every error that the suite raises on purpose."""

    exit_code = 1


class UserError(FaithDiffError):
    """The caller gave something that cannot work and can be mended."""

    exit_code = 2


class ConfigError(UserError):
    """A config file does not fit its schema."""


class ImageError(UserError):
    """An image cannot be read, or is not an image."""


class CheckpointError(UserError):
    """Weights are missing, corrupted, or do not fit the model."""


class RunError(FaithDiffError):
    """A run failed half way for a reason outside of its inputs."""


class CorruptedError(RunError):
    """A file changed after it was written, by no command of the suite."""


class TooLargeError(RunError):
    """One image needs more memory than there is; the run goes on with the others."""


class NotFiniteError(RunError):
    """A network gave NaN or infinity for one image; the run goes on with the others."""


class Paused(FaithDiffError):  # noqa: N818 - nothing went wrong
    """A training saved its state and stopped before its end, as it was asked to."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h

    def __init__(self, message: str, state: Path) -> None:
        super().__init__(message)
        self.state = state
