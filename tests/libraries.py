"""Import other libraries, with which tests compare."""

import importlib
import os
from types import ModuleType

import pytest


def library(name: str) -> ModuleType:
    """Import a library of the extra `test`. Without it, skip the test, but fail under CI."""
    # CI installs the extra, so a comparison that does not run there is a mistake.
    return importlib.import_module(name) if "CI" in os.environ else pytest.importorskip(name)
