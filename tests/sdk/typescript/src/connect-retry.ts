// Retries that obey what the service tells, for @connectrpc/connect: copy this into yours.
//
// A call is made again where that is safe and can help, until its deadline. It knows the
// reasons of docs/errors.md, and nothing of what is called.

import { Code, ConnectError, type CallOptions } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "./connect/google/rpc/error_details_pb.js";

/** Refused before anything was done, and better in a moment. */
const SOON = ["STORE_UNAVAILABLE", "OVERLOADED", "DRAINING", "REQUEST_IN_PROGRESS", "RESTORE_IN_PROGRESS"];
/** Refused until a time that the service tells to the millisecond. */
const THEN = ["RATE_LIMITED", "QUOTA_EXCEEDED"];

export interface Patience {
  /**
   * Whether making the call twice is making it once: a read, a Set without `condition` and
   * `ifVersion`, or anything that carries a `requestId`.
   */
  repeatable: boolean;
  /** Milliseconds that it may take in all. */
  withinMs?: number;
  attempts?: number;
  sleep?: (ms: number) => Promise<void>;
}

/** Calls until there is an answer, or until it must not be called again. */
export async function retry<T>(call: (options: CallOptions) => Promise<T>, patience: Patience): Promise<T> {
  const { repeatable, withinMs = 10_000, attempts = 8 } = patience;
  const sleep = patience.sleep ?? ((ms) => new Promise((wake) => setTimeout(wake, ms)));
  const end = performance.now() + withinMs;
  for (let attempt = 1; ; attempt++) {
    let wait: number | undefined;
    try {
      // Whole milliseconds: connect sends what it is given, and gRPC knows no fractions.
      return await call({ timeoutMs: Math.max(Math.ceil(end - performance.now()), 1) });
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      wait = pause(error, repeatable, attempt);
      if (wait === undefined || attempt >= attempts || wait >= end - performance.now()) throw error;
    }
    await sleep(wait);
  }
}

/** Milliseconds before the next attempt; undefined where there must be none. */
export function pause(error: ConnectError, repeatable: boolean, attempt: number): number | undefined {
  const { reason, delayMs } = explain(error);
  // Never sooner than told, later each time, and not all clients at the same moment.
  const backoff = Math.min(50 * 2 ** (attempt - 1), 5_000);
  const spread = Math.max(delayMs ?? 0, backoff) * (1 + Math.random() / 2);
  if (reason !== undefined && THEN.includes(reason)) return delayMs;
  if (reason !== undefined && SOON.includes(reason)) return spread;
  // It may have happened, or nobody knows whether it came through.
  const lost = reason === "OUTCOME_UNKNOWN" || (reason === undefined && error.code === Code.Unavailable);
  return lost && repeatable ? spread : undefined;
}

/** The reason of an error, and the milliseconds that its RetryInfo tells. */
export function explain(error: ConnectError): { reason?: string; delayMs?: number } {
  const info = error.findDetails(ErrorInfoSchema).find((info) => info.domain === "persistence.riptide");
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    reason: info?.reason,
    delayMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
  };
}
