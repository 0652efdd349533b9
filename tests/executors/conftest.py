"""The text that cells of a file of tests are run on."""

from tests.runner.conftest import text

__all__ = ["text"]
