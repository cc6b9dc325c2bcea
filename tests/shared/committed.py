"""Results as the last commit has them: a study that somebody runs here has costs of its own."""

import subprocess

from . import ROOT


def committed(path: str) -> str:
    """Text of a file in the last commit; of the file itself where there is no repository."""
    done = subprocess.run(
        ["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    return done.stdout if done.returncode == 0 else (ROOT / path).read_text(encoding="utf-8")
