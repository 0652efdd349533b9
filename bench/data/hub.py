"""Stream data sets from the Hugging Face hub, up to the tokens that a suite needs.

`datasets` alone retries an unreachable hub for 23 seconds, so the hub is asked first, for at most
1.5 s. There is no fallback to other data.
"""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.config.data import DataConfig
from bench.data.documents import Document, Intake, Source
from bench.data.local import does_not_exist
from bench.data.tables import TableRow, row_documents
from bench.errors import UserError

TIMEOUT = 1.5
"""Seconds to wait for an answer of the hub."""

_ADVICE = "download the files and give their path, or use the embedded corpus (no path)."


def source(config: DataConfig) -> Source:
    """Return the data set `config.path` as a source.

    A corpus that is already in the cache is used without asking the hub.
    """
    intake = Intake()
    return Source({}, partial(_documents, config, intake), intake)


def _documents(config: DataConfig, intake: Intake) -> Iterator[Document]:
    require_hub(str(config.path))
    return row_documents(config, _rows(config), intake)


def _rows(config: DataConfig) -> Generator[TableRow, None, None]:
    """Stream the rows of a data set in their order. The stream may be closed at any row."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        table = datasets.load_dataset(
            str(config.path),
            streaming=True,
            name=config.name,
            split=config.split,
            revision=config.revision,
        )
        with closing(iter(table)) as rows:
            yield from rows
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # `datasets` reports a wrong path, name or split as any of these.
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise UserError(
            f"Cannot read the data {config.path!r} (name {config.name!r}): {reason}."
            " Check path, name and split."
        ) from error


def require_hub(path: str) -> None:
    """Refuse at once if the hub cannot be reached.

    Raises:
        UserError: HF_HUB_OFFLINE forbids it, or the hub did not answer within `TIMEOUT`.
    """
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise UserError(
                f"{does_not_exist(Path(path))} As a data set it would be on the hub, and"
                f" {variable} forbids asking it: unset it, {_ADVICE}"
            )
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    failure: list[str] = [f"no answer within {TIMEOUT} s"]
    # Name resolution has no timeout, so it runs in a thread that may be left behind.
    thread = threading.Thread(target=_ask, args=(endpoint, failure), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if failure:
        raise UserError(
            f"{does_not_exist(Path(path))} As a data set it would be on the hub, and {endpoint} is"
            f" unreachable ({failure[0]}): check the network, {_ADVICE}"
        )


def _ask(endpoint: str, failure: list[str]) -> None:
    """Empty `failure` if the endpoint answers at all, also through the proxy of the environment."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT
        ):
            failure.clear()
    except urllib.error.HTTPError:
        # An error code is an answer too.
        failure.clear()
    except (OSError, ValueError) as error:
        failure[0] = str(getattr(error, "reason", error))
