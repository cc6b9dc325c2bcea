"""Runs an official script for one image after the other in one process, and keeps what it loads.

It runs in the environment and the checkout of the authors, and imports nothing of the suite. The
script's main block runs for each image, with the arguments of that image: it parses them, seeds and
restores as in a process of its own. Only the functions that load models return what they loaded
for the first image. ``python driver.py JOB``; a job is made in ``baselines/official/kept.py``.
"""

from __future__ import annotations

import ast
import json
import os
import random
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

#: Exit code where a process for each image would give other results.
DIFFERS = 77


def random_states() -> dict[str, object]:
    """The states of the generators that a script may draw from without naming one."""
    found: dict[str, object] = {"Python's generator": random.getstate()}
    # Asked only where the script has imported them: they need not be in its environment.
    if (numpy := sys.modules.get("numpy")) is not None:
        kind, words, *rest = numpy.random.get_state()
        found["NumPy's generator"] = (kind, words.tobytes(), *rest)
    if (torch := sys.modules.get("torch")) is not None:
        found["torch's generator for the CPU"] = torch.get_rng_state().tolist()
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            state = torch.cuda.get_rng_state(number)
            found[f"torch's generator for GPU {number}"] = state.tolist()
    return found


def drawn_from(before: dict[str, object]) -> set[str]:
    """The generators that are in another state than before."""
    after = random_states()
    return {name for name, state in before.items() if after[name] != state}


class LastLine:
    """Standard output that remembers its last line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, ""

    def write(self, text: str) -> int:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.last = lines[-1] if lines else self.last
        return self.stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


class Script:
    """An official script: its definitions run once, its main block for each image.

    Args:
        entry: The script.
        loaders: Functions or classes that load models, by name; each takes the parsed arguments
            first. With each the attribute of its result that holds them, or nothing.
    """

    def __init__(self, entry: str, loaders: dict[str, str]) -> None:
        self.entry = entry
        self.loading = False
        self.drawn_by_loading: set[str] = set()
        self.states: dict[str, object] = {}
        tree = ast.parse(Path(entry).read_bytes(), entry)
        blocks = [node for node in tree.body if _is_main(node)]
        if not blocks:
            sys.exit(f"{entry}: has no `if __name__ == '__main__'`: another version?")
        self.main = _compiled(blocks, entry)
        definitions = _compiled([node for node in tree.body if node not in blocks], entry)
        # In the place of this module, as if the script had been started.
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        module.__file__ = entry
        self.names = module.__dict__
        exec(definitions, self.names)  # noqa: S102 - that is what this program is for
        for name, attribute in loaders.items():
            self.names[name] = self._once(self.names[name], attribute)

    def _once(self, load: Callable[..., object], attribute: str) -> Callable[..., object]:
        kept: list[object] = []

        def get(arguments: object, *more: object, **named: object) -> object:
            if not kept:
                before, self.loading = random_states(), True
                kept.append(load(arguments, *more, **named))
                self.loading = False
                self.drawn_by_loading |= drawn_from(before)
            if attribute:
                setattr(kept[0], attribute, arguments)
            self.states = random_states()
            return kept[0]

        return get

    def run(self, arguments: list[str]) -> str:
        """Run the main block with these arguments; why it failed, if it did."""
        sys.argv = [self.entry, *arguments]
        self.states = random_states()
        try:
            exec(self.main, self.names)  # noqa: S102
        except (Exception, SystemExit) as error:
            if self.loading:
                raise  # no other image would fare better
            if isinstance(error, SystemExit):
                return str(error.code or "")
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        return ""

    def drawn_twice(self) -> list[str]:
        """Generators that the last image drew from, and the loading of models before.

        A process for the image alone would have loaded with the seed of this image, and its draws
        would have come after those of the loading.
        """
        return sorted(drawn_from(self.states) & self.drawn_by_loading)


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _compiled(body: list[ast.stmt], entry: str) -> types.CodeType:
    return compile(ast.Module(body=body, type_ignores=[]), entry, "exec", dont_inherit=True)


def run(file: Path) -> None:
    """Restore the images of a job; the folder `making` of each becomes `done` at its end."""
    job = json.loads(file.read_text(encoding="utf-8"))
    # Python puts the folder of this file first, and its modules are named as those of the authors.
    sys.path[0] = str(Path.cwd())
    said = LastLine(sys.stdout)
    sys.stdout = said
    script = Script(job["entry"], job["loaders"])
    for image in job["images"]:
        folder = Path(image["folder"])
        print(f"--- {folder.name}", flush=True)
        said.last = ""
        if why := script.run(image["arguments"]):
            _write(folder / "failed.txt", why)
        elif twice := script.drawn_twice():
            print(f"{folder.name} and the loading of models both drew from {twice[0]}", flush=True)
            sys.exit(DIFFERS)
        else:
            _write(folder / "making" / "said.txt", said.last)
            # As a whole: what lies in `done` is finished, whenever this process is killed.
            (folder / "making").rename(folder / "done")


def _write(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
