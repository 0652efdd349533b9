"""The text and the plugin that cells of a file of tests are run on."""

from tests.runner.conftest import harmful, text

__all__ = ["harmful", "text"]
