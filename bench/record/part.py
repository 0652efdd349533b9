"""Define the base of all parts of a record."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen group of fields, without others."""

    # A diverged run has infinite losses and NaN: they must survive the file.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants"
    )
