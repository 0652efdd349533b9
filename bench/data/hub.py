"""Data sets on the Hugging Face hub, streamed and materialised up to the tokens that a suite needs.

`datasets` alone retries an unreachable hub for 23 seconds. So reachability is asked first, in at
most 1.5 s, and there is no fallback to other data.
"""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial

from bench.config.data import DataConfig
from bench.data.documents import Document, Source
from bench.data.tables import stream
from bench.errors import UserError

TIMEOUT = 1.5
"""Seconds that the hub has to answer."""

_ADVICE = "download the files and give their path, or use the embedded corpus (no path)."


def source(config: DataConfig) -> Source:
    """The data set `config.path`. A corpus already in the cache is used without asking the hub."""
    return Source({}, partial(_documents, config))


def _documents(config: DataConfig) -> Iterator[Document]:
    require_hub(str(config.path))
    return stream(
        config, str(config.path), name=config.name, split=config.split, revision=config.revision
    )


def require_hub(path: str) -> None:
    """Refuse at once where the hub cannot be asked for `path`.

    Raises:
        UserError: switched off by HF_HUB_OFFLINE, or no answer within `TIMEOUT`.
    """
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise UserError(
                f"{path!r} is a data set on the hub, and {variable} forbids asking it: unset it, {_ADVICE}"
            )
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    failure: list[str] = [f"no answer within {TIMEOUT} s"]
    # Name resolution knows no timeout, hence a thread that may be left behind.
    thread = threading.Thread(target=_ask, args=(endpoint, failure), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if failure:
        raise UserError(
            f"{path!r} is a data set on the hub, and {endpoint} is unreachable ({failure[0]}): check the network, {_ADVICE}"
        )


def _ask(endpoint: str, failure: list[str]) -> None:
    """Empty `failure` when the endpoint answers anything at all, through the proxy of the
    environment if there is one.
    """
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT
        ):
            failure.clear()
    except urllib.error.HTTPError:
        failure.clear()
    except (OSError, ValueError) as error:
        failure[0] = str(getattr(error, "reason", error))
