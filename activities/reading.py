"""Reading what activities of other people's workers leave in history."""

from __future__ import annotations

import dataclasses

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter


class TolerantFailures(DefaultFailureConverter):
    """Reads a failure whose details are encoded as nobody here reads them as one without details."""

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """Make the exception (Temporal's own signature)."""
        try:
            return super().from_failure(failure, payload_converter)
        except (RuntimeError, KeyError, ValueError):
            plain = Failure()
            plain.CopyFrom(failure)
            if plain.HasField("application_failure_info"):
                plain.application_failure_info.ClearField("details")
            if plain.HasField("timeout_failure_info"):
                plain.timeout_failure_info.ClearField("last_heartbeat_details")
            if plain.HasField("canceled_failure_info"):
                plain.canceled_failure_info.ClearField("details")
            return super().from_failure(plain, payload_converter)


def tolerant(converter: DataConverter) -> DataConverter:
    """Return a converter that reads every failure; one that somebody has made for failures stays as it is."""
    if converter.failure_converter_class is not DefaultFailureConverter:
        return converter
    return dataclasses.replace(converter, failure_converter_class=TolerantFailures)
