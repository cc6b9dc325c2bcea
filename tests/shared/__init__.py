"""What tests of several rooms use: small models and files, a browser, runs of the whole study."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
