"""What every part of a configuration has in common.

Frozen, strict, and with one canonical form that keys are made of.
"""

import hashlib
import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A group of fields; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """Plain JSON data that say all of it, for records and hashes.

        Fields made with `added` only where they are set.
        """
        data = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.json_schema_extra == _ADDED and value == field.get_default(
                call_default_factory=True
            ):
                del data[name]
            else:
                data[name] = _plain(value, data[name])
        return data


_ADDED: dict[str, Any] = {"added": True}


def added(default: Any, **options: Any) -> Any:
    """A field that came after the first official records.

    At its default, which must change nothing, it is no part of the canonical form, so that older
    records keep their keys.
    """
    return Field(default=default, json_schema_extra=_ADDED, **options)


def hash_of(data: Any) -> str:
    """SHA-256 of JSON data in canonical form."""
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
