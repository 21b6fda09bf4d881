"""Retries that obey what the service tells: copy this into yours.

A call is made again where that is safe and can help, until its deadline. It knows the
reasons of docs/errors.md, and nothing of what is called.
"""

from __future__ import annotations

import random
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Refused before anything was done, and better in a moment.
SOON = {"STORE_UNAVAILABLE", "OVERLOADED", "DRAINING", "REQUEST_IN_PROGRESS", "RESTORE_IN_PROGRESS"}
# Refused until a time that the service tells to the millisecond.
THEN = {"RATE_LIMITED", "QUOTA_EXCEEDED"}


def call(rpc, request, *, repeatable, within=10.0, attempts=8, sleep=time.sleep, **options):
    """Calls `rpc` until it answers, or must not be called again.

    `repeatable` is whether calling it twice is calling it once: a read, a Set without
    `condition` and `if_version`, or anything that carries a `request_id`. `within` is
    how many seconds it may take in all; `options` go to the call, such as `metadata`.
    """
    end = time.monotonic() + within
    attempt = 1
    while True:
        try:
            return rpc(request, timeout=max(end - time.monotonic(), 0.0), **options)
        except grpc.RpcError as error:
            wait = pause(error, repeatable, attempt)
            if wait is None or attempt >= attempts or wait >= end - time.monotonic():
                raise
        sleep(wait)
        attempt += 1


def pause(error, repeatable: bool, attempt: int) -> float | None:
    """The seconds to wait before the next attempt; None where there must be none."""
    reason, told = reason_and_delay(error)
    # Never sooner than told, later each time, and not all clients at the same moment.
    backoff = min(0.05 * 2 ** (attempt - 1), 5.0)
    spread = max(told or 0.0, backoff) * random.uniform(1.0, 1.5)
    if reason in THEN:
        return told
    if reason in SOON:
        return spread
    # It may have happened, or nobody knows whether it came through.
    lost = reason == "OUTCOME_UNKNOWN" or (reason is None and error.code() == grpc.StatusCode.UNAVAILABLE)
    return spread if lost and repeatable else None


def reason_and_delay(error) -> tuple[str | None, float | None]:
    """The reason of an error, and the seconds its RetryInfo tells; None for what it has not."""
    reason = delay = None
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "persistence.riptide":
            reason = info.reason
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, delay
