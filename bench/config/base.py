"""Define the base class of every part of a configuration.

A part is frozen and strict. It has one canonical form, from which content keys are computed.
"""

import hashlib
import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A group of fields. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """Return the part as plain JSON data, for records and hashes.

        Fields declared with `added` are left out at their default.
        """
        # JSON types alone: a tuple and a list must give one key.
        data = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.json_schema_extra == _ADDED and value == field.get_default(
                call_default_factory=True
            ):
                del data[name]
            else:
                # `model_dump` knows nothing of `added`, so nested parts are converted here.
                data[name] = _plain(value, data[name])
        return data


_ADDED: dict[str, Any] = {"added": True}


def added(default: Any, **options: Any) -> Any:
    """Declare a field that came after the first official records.

    At its default the field is left out of the canonical form, so older records keep their keys.
    The default must change nothing.
    """
    return Field(default=default, json_schema_extra=_ADDED, **options)


def hash_of(data: Any) -> str:
    """Return the SHA-256 of JSON data in canonical form."""
    return hashlib.sha256(
        json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _plain(value: Any, dumped: Any) -> Any:
    if isinstance(value, Part):
        return value.canonical()
    if isinstance(value, tuple):
        parts = cast(tuple[Any, ...], value)
        return [_plain(part, plain) for part, plain in zip(parts, dumped, strict=True)]
    return dumped
