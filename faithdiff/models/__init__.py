"""Networks of the study; importing any of them first repairs the torchvision import."""

from faithdiff import compat as compat  # isort: split

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

# Both libraries warn about the extra config keys of a subclassed VAE and draw their own progress
# bars while loading; real trouble arrives as an exception.
diffusers_logging.set_verbosity_error()
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
