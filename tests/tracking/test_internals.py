"""What the suite uses of DVC and Snakemake beside their commands: another version may lack it.

DVC's commands cannot do what :mod:`faithdiff.tracking.dvc` needs of them: one process that opens
the repository once, errors told apart by their kind, and the objects of a folder before they are
checked out.
"""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.output import Output
from dvc.repo import Repo
from dvc.scm import SCM, SCMError
from dvc.stage import PipelineStage
from dvc.stage.exceptions import StageNotFound
from snakemake.logging import ColorizingTextHandler, LogEvent, LoggerManager
from snakemake.persistence.file import FilePersistence
from snakemake.scheduling import job_scheduler
from snakemake.settings.types import OutputSettings
from snakemake.shell import shell

from faithdiff.planning.display import HIDDEN, PLAIN, SELECTING
from faithdiff.tracking.jobs import METADATA, _output


def test_dvc_has_what_is_used_of_it(tmp_path: Path) -> None:
    for method, names in {
        "commit": ("target", "force", "relink"),
        "fetch": ("targets", "remote"),
        "pull": ("targets", "remote"),
    }.items():
        assert set(names) <= set(inspect.signature(getattr(Repo, method)).parameters), method
    for name in ("status", "get_obj", "is_dir_checksum", "exists"):
        assert hasattr(Output, name), name
    assert issubclass(LockError, DvcException) and issubclass(StageNotFound, DvcException)
    with pytest.raises(SCMError):
        SCM(str(tmp_path))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        (tmp_path / "dvc.yaml").write_text(
            "stages: {study: {matrix: {profile: [x]}, cmd: make, outs: [made]}}", encoding="utf-8"
        )
        (stage,) = repo.stage.collect(f"{repo.root_dir}/dvc.yaml:study@x")
        assert [out.def_path for out in stage.outs] == ["made"] and stage.cmd == "make"
        assert isinstance(stage, PipelineStage) and stage.repo is repo
        place = Path(repo.cache.local.oid_to_path("ab" + 30 * "0"))
        assert place == Path(repo.cache.local.path) / "ab" / (30 * "0")


@pytest.mark.parametrize("output", ["results/mini/scores.csv", "data/" + 60 * "long/" + "x"])
def test_snakemake_names_its_records_as_they_are_read(tmp_path: Path, output: str) -> None:
    persistence = FilePersistence(path=tmp_path / ".snakemake")
    file = Path(persistence._record_path(str(tmp_path / METADATA), output))
    assert _output(file.relative_to(tmp_path / METADATA)) == Path(output)


def test_snakemake_prints_by_what_the_display_of_a_run_replaces() -> None:
    own = logging.getLogger("test_internals")
    LoggerManager(own, OutputSettings())
    (plain,) = own.handlers
    assert isinstance(plain, ColorizingTextHandler) and hasattr(plain, "nocolor")
    assert shell._get_process_prefix("/bin/bash") == PLAIN or shell._process_prefix is not None
    assert {event.value for event in HIDDEN} <= {event.value for event in LogEvent}
    scheduler = inspect.getsource(job_scheduler)
    assert SELECTING in scheduler and "job_id=" in scheduler
