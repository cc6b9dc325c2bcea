"""Digests of the code that jobs run, remembered from one plan to the next.

To parse all modules of the suite takes longer than anything else that a plan does of its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from contextlib import suppress
from pathlib import Path

from faithdiff.data.outside import files_in
from faithdiff.errors import RunError
from faithdiff.study import provenance
from faithdiff.study.files import write_text_atomic
from faithdiff.study.provenance import PACKAGES, ROOT

KEPT = Path(".snakemake", "code.json")  # the state of the sources, and the digests of that state


@functools.cache
def code_digest(*modules: str) -> str:
    """The digest of :func:`faithdiff.study.provenance.code_digest`.

    It is remembered where Snakemake keeps its own records, if that can be written.
    """
    # Of other modules the state of the sources says nothing.
    if any(module.partition(".")[0] not in PACKAGES for module in modules):
        return provenance.code_digest(*modules)
    state, name = _state(), " ".join(modules)
    kept = _kept(KEPT.absolute(), state)
    if name not in kept:
        kept[name] = provenance.code_digest(*modules)
        # Not if a source was saved meanwhile: of which content the digest is, nobody knows then.
        if KEPT.parent.is_dir() and _hash_of_sources() == state:
            with suppress(RunError):  # a study that cannot be written is only slower to plan
                write_text_atomic(json.dumps({"sources": state, "digests": kept}), KEPT)
    return kept[name]


@functools.cache
def _state() -> str:
    """The state of the sources when this plan began."""
    return _hash_of_sources()


def _hash_of_sources() -> str:
    """Hash of all sources of the suite, and of the Python that parses them.

    All, and their content: of a single closure a new file might change what an import means, and
    times say nothing after a checkout or a copy. To read them takes milliseconds.
    """
    sha = hashlib.sha256(platform.python_version().encode())
    for file in _sources():
        sha.update(f"\n{file.relative_to(ROOT).as_posix()} ".encode())
        sha.update(provenance.file_digest(file).encode())
    return sha.hexdigest()


def _sources() -> list[Path]:
    """All that may be imported as a part of the suite, also through links to other folders.

    Hidden files are none of it: some editors put a link that leads nowhere beside a file that is
    being edited.
    """
    places = [place for place in ROOT.iterdir() if place.name.startswith(PACKAGES)]
    return sorted(f for place in places for f in files_in(place) if f.suffix == ".py")


@functools.cache
def _kept(file: Path, state: str) -> dict[str, str]:
    """What earlier plans computed of these sources; nothing where the file is corrupted."""
    try:
        found = json.loads(file.read_bytes())
        if found["sources"] != state:
            return {}
        return {str(name): str(digest) for name, digest in found["digests"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
