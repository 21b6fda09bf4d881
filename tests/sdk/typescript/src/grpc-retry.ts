// Retries that obey what the service tells, for @grpc/grpc-js: copy this into yours.
//
// A call is made again where that is safe and can help, until its deadline. It knows the
// reasons of docs/errors.md, and nothing of what is called.

import { status, type CallOptions, type ServiceError } from "@grpc/grpc-js";
import { ErrorInfo, RetryInfo } from "./grpc/google/rpc/error_details.js";
import { Status } from "./grpc/google/rpc/status.js";

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
  const end = Date.now() + withinMs;
  for (let attempt = 1; ; attempt++) {
    let wait: number | undefined;
    try {
      return await call({ deadline: end });
    } catch (error) {
      wait = isServiceError(error) ? pause(error, repeatable, attempt) : undefined;
      if (wait === undefined || attempt >= attempts || wait >= end - Date.now()) throw error;
    }
    await sleep(wait);
  }
}

/** Milliseconds before the next attempt; undefined where there must be none. */
export function pause(error: ServiceError, repeatable: boolean, attempt: number): number | undefined {
  const { reason, delayMs } = explain(error);
  // Never sooner than told, later each time, and not all clients at the same moment.
  const backoff = Math.min(50 * 2 ** (attempt - 1), 5_000);
  const spread = Math.max(delayMs ?? 0, backoff) * (1 + Math.random() / 2);
  if (reason !== undefined && THEN.includes(reason)) return delayMs;
  if (reason !== undefined && SOON.includes(reason)) return spread;
  // It may have happened, or nobody knows whether it came through.
  const lost = reason === "OUTCOME_UNKNOWN" || (reason === undefined && error.code === status.UNAVAILABLE);
  return lost && repeatable ? spread : undefined;
}

/** The reason of an error, and the milliseconds that its RetryInfo tells. */
export function explain(error: ServiceError): { reason?: string; delayMs?: number } {
  const info = detail(error, "google.rpc.ErrorInfo", ErrorInfo);
  const delay = detail(error, "google.rpc.RetryInfo", RetryInfo)?.retryDelay;
  return {
    reason: info?.domain === "persistence.riptide" ? info.reason : undefined,
    delayMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
  };
}

/** The detail of an error that has this name, such as `google.rpc.BadRequest`. */
export function detail<T>(error: ServiceError, name: string, type: { decode(bytes: Uint8Array): T }): T | undefined {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!(packed instanceof Buffer)) return undefined;
  const found = Status.decode(packed).details.find((detail) => detail.typeUrl.endsWith(`/${name}`));
  return found && type.decode(found.value);
}

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}
