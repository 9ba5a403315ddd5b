"""Which messages a run has taken: a repeated id counts once."""

from __future__ import annotations

import base64
import hashlib

from holdfast.bounds import CARRIED_IDS_MAX

_CHARACTERS = 8


class SeenIds:
    """The latest 10,000 ids, as hashes of 48 bits: small enough to be handed from link to link."""

    def __init__(self, packed: str = "") -> None:
        parts = (packed[at : at + _CHARACTERS] for at in range(0, len(packed), _CHARACTERS))
        self._hashes = dict.fromkeys(parts)

    def take(self, message_id: str) -> bool:
        """Remember an id; False for one that was seen before."""
        digest = hashlib.sha256(message_id.encode()).digest()[: _CHARACTERS * 6 // 8]
        short = base64.b64encode(digest).decode()
        if short in self._hashes:
            return False
        self._hashes[short] = None
        if len(self._hashes) > CARRIED_IDS_MAX:
            del self._hashes[next(iter(self._hashes))]
        return True

    def packed(self) -> str:
        """Return all of them as one text."""
        return "".join(self._hashes)
