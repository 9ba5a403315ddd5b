"""The base of all data that crosses a process."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Data(BaseModel):
    """Frozen, and refuses unknown fields: a typing error is told, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def recorded(cls, given: Any) -> Self:
        """Read what another version may have recorded: fields that this one does not know are left out."""
        return cls.model_validate(given, extra="ignore")

    def wire(self) -> dict[str, Any]:
        """Return the JSON form that history records: fields left at their defaults take no room."""
        return self.model_dump(mode="json", exclude_defaults=True)
