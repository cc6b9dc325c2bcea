"""How figures look: one colour and one marker per method in every figure, and equal bytes.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; yellow is left out
because it fades on white. Fonts are embedded as TrueType, and no file carries a date.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from faithdiff.config import Profile
from faithdiff.study.files import write_bytes_atomic

VERMILLION = "#D55E00"
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*"]
GREY = "#808080"
# For lines that no profile names: a colour and a marker each.
PALETTE = [*zip([VERMILLION, *_COLOURS], _MARKERS, strict=False)]


class NoteStyle(TypedDict):
    """The line below a figure."""

    fontsize: float
    color: str


RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are equal on every machine
    "font.size": 7.5,
    "text.parse_math": False,  # a label with $ is text
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "pdf.compression": 9,
    "svg.hashsalt": "faithdiff",
}
NOTE: NoteStyle = {"fontsize": 6.5, "color": "#404040"}
SMALL = 256  # pixels
LONG = 48  # characters of a label that have a line for themselves
WIDTH = 7.0  # inches: the text width of a two-column paper


@dataclass(frozen=True)
class MethodStyle:
    """How a method is named and drawn."""

    label: str
    colour: str
    marker: str


def method_styles(profile: Profile) -> dict[str, MethodStyle]:
    """Give each method a style; the reference of the ablation is the vermillion one."""
    reference = profile.report.ablation[0]
    # Those of the main table first, so that colours do not repeat there before they must.
    others = dict.fromkeys([*profile.report.main, *profile.methods])
    others.pop(reference, None)
    # A second sampler of the same weights has their colour and a marker of its own.
    owners = [name for name in others if profile.checkpoint_of(name) == name]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(owners)}
    colours[reference] = VERMILLION
    styles = {
        name: MethodStyle(
            in_lines(profile.methods[name].label),
            colours[profile.checkpoint_of(name)],
            _MARKERS[1 + i % (len(_MARKERS) - 1)],
        )
        for i, name in enumerate([*owners, *(name for name in others if name not in owners)])
    }
    label = in_lines(profile.methods[reference].label)
    return {reference: MethodStyle(label, VERMILLION, _MARKERS[0]), **styles}


def in_lines(label: str) -> str:
    """Break a label that would take the place of the axes beside it; tables have it whole."""
    if len(label) <= LONG:
        return label
    return "\n".join(textwrap.wrap(label, LONG - 8, max_lines=3, placeholder=" …"))


def grid(axes: Axes) -> None:
    """Draw a faint grid below the data."""
    axes.grid(color="#E0E0E0", linewidth=0.5)
    axes.set_axisbelow(True)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` (200 dpi) and ``<stem>.pdf``; equal figures give equal bytes."""
    undated: dict[str, dict[str, str | None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    _give_fonts(figure, stem)
    paths = []
    with warnings.catch_warnings():
        # Said above in one line; matplotlib says it for each letter, at each of its drawings.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        for suffix, metadata in undated.items():
            paths.append(_save(figure, stem.with_name(f"{stem.name}.{suffix}"), metadata))
            figure.set_layout_engine("none")  # the second file keeps the first one's layout
    return paths


def _give_fonts(figure: Figure, stem: Path) -> None:
    """Take the letters that DejaVu lacks (Chinese, Japanese, Korean, ...) from another font here.

    Where no font has them, the figure is drawn with boxes, and one line says so.
    """
    own = _letters(font_manager.findfont(RC["font.family"]))
    texts = {text: _visible(text.get_text()) - own for text in figure.findobj(Text)}
    lacking = set().union(*texts.values())
    if not lacking:
        return
    # By name and file: of several fonts that would do, every run takes the same.
    fonts = sorted((font.name, font.fname) for font in font_manager.fontManager.ttflist)
    families = [str(RC["font.family"])]
    for name, file in fonts:
        # "Last Resort" has a box for every letter, which is what is to be avoided.
        if not name.startswith("Last Resort") and (found := lacking & _letters(file)):
            families.append(name)
            lacking -= found
    for text, letters in texts.items():
        if letters:
            text.set_fontfamily(families)
    if lacking:
        print(
            f"{stem}: no font here has {''.join(sorted(lacking))}: boxes are drawn instead; "
            "install one (such as Noto Sans CJK), or give the label in other letters"
        )


def _letters(font: str) -> set[str]:
    """Every character that a font file has."""
    return set(map(chr, font_manager.get_font(font).get_charmap()))


def _visible(text: str) -> set[str]:
    return {letter for letter in text if letter.isprintable() and not letter.isspace()}


def _save(figure: Figure, path: Path, metadata: dict[str, str | None]) -> Path:
    if path.suffix == ".pdf":
        # Small images go in pixel by pixel; resampled ones would be larger and no sharper.
        for image in figure.findobj(AxesImage):
            if max(image.get_size()) <= SMALL:
                image.set_interpolation("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=200, metadata=metadata)
    write_bytes_atomic(buffer.getvalue(), path)
    return path
