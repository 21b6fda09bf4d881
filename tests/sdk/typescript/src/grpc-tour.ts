// What a TypeScript service does with ours over @grpc/grpc-js: keys, entries, sessions,
// streams, errors, retries.
//
// usage: node grpc-tour.js ADDRESS ADMIN_KEY SERVICE_CONFIG
//
// Uses what proto/buf.gen.grpc-js.yaml makes, in ./grpc. Any surprise ends it with an
// error. Whoever runs it stops and starts the server when it says so; see ./server.ts.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  credentials,
  Metadata,
  status,
  type CallOptions,
  type ClientUnaryCall,
  type Client,
  type ServiceError,
} from "@grpc/grpc-js";
import { BadRequest, RequestInfo } from "./grpc/google/rpc/error_details.js";
import { SetCondition, SetEntry } from "./grpc/riptide/persistence/v1/cache.js";
import {
  BatchGetRequest,
  BatchSetRequest,
  CacheServiceClient,
  DeleteRequest,
  GetRequest,
  InvalidateCacheRequest,
  ListKeysRequest,
  SetRequest,
  TouchRequest,
  WarmCacheRequest,
  WatchInvalidationsRequest,
  type WarmCacheResponse,
} from "./grpc/riptide/persistence/v1/cache_service.js";
import {
  CreateSessionRequest,
  GetSessionRequest,
  ListSessionsRequest,
  TerminateSessionRequest,
} from "./grpc/riptide/persistence/v1/session.js";
import { StateServiceClient } from "./grpc/riptide/persistence/v1/state_service.js";
import {
  CreateApiKeyRequest,
  CreateTenantRequest,
  TenantServiceClient,
  UpdateTenantRequest,
  WhoAmIRequest,
} from "./grpc/riptide/persistence/v1/tenant_service.js";
import { detail, explain, isServiceError, retry } from "./grpc-retry.js";
import * as server from "./server.js";

const [address, adminKey, serviceConfig] = process.argv.slice(2);

const options = {
  "grpc.max_receive_message_length": 64 << 20,
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // gRPC's own retries: of reads, and of UNAVAILABLE alone. They know no RetryInfo.
  "grpc.service_config": readFileSync(serviceConfig, "utf8"),
  // How long a channel waits at most before it reaches for a server again.
  "grpc.max_reconnect_backoff_ms": 5_000,
};

// credentials.createSsl(ca) where it speaks TLS.
const plaintext = credentials.createInsecure();
const tenants = new TenantServiceClient(address, plaintext, options);
const caches = new CacheServiceClient(address, plaintext, options);
const states = new StateServiceClient(address, plaintext, options);

type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, answer: A) => void,
) => ClientUnaryCall;

/** Whoever calls with one key. */
class Caller {
  constructor(private readonly key: string) {}

  /** The credentials of a call; over TLS they can be the channel's. */
  metadata(): Metadata {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${this.key}`);
    return metadata;
  }

  /** Makes a call once, with a deadline. */
  call<Q, A>(client: Client, rpc: Unary<Q, A>, request: Q, options: CallOptions = {}): Promise<A> {
    const deadline = options.deadline ?? Date.now() + 20_000;
    return new Promise((answer, fail) => {
      rpc.call(client, request, this.metadata(), { ...options, deadline }, (error, response) =>
        error ? fail(error) : answer(response),
      );
    });
  }

  tenant = <Q, A>(rpc: Unary<Q, A>, request: Q, options?: CallOptions) => this.call(tenants, rpc, request, options);
  cache = <Q, A>(rpc: Unary<Q, A>, request: Q, options?: CallOptions) => this.call(caches, rpc, request, options);
  state = <Q, A>(rpc: Unary<Q, A>, request: Q, options?: CallOptions) => this.call(states, rpc, request, options);
}

const seconds = (seconds: number) => ({ seconds: BigInt(seconds), nanos: 0 });
const get = (key: string) => GetRequest.create({ key });

/** Makes a call that must fail. */
async function failure(call: Promise<unknown>): Promise<ServiceError> {
  const answer = await call.catch((error: unknown) => error);
  assert(isServiceError(answer), `answered: ${answer}`);
  return answer;
}

/** Creates a tenant, and checks that a retry gives the same answer. */
async function createTenant(admin: Caller, tenantId: string): Promise<Caller> {
  const request = CreateTenantRequest.create({ tenantId, plan: "basic", requestId: randomUUID() });
  const created = await admin.tenant(tenants.createTenant, request);
  assert.equal(created.tenant?.tenantId, tenantId);
  const again = await admin.tenant(tenants.createTenant, request);
  assert.equal(again.secret, created.secret);
  return new Caller(created.secret);
}

async function keys(admin: Caller, acme: Caller): Promise<void> {
  assert.equal((await acme.tenant(tenants.whoAmI, WhoAmIRequest.create())).tenantId, "acme");
  const request = CreateApiKeyRequest.create({ tenantId: "acme", displayName: "reader", scopes: ["cache.read"] });
  const reader = new Caller((await admin.tenant(tenants.createApiKey, request)).secret);
  assert.equal((await reader.cache(caches.get, get("nothing"))).entry, undefined);
  const refused = await failure(reader.cache(caches.set, SetRequest.create({ key: "a" })));
  assert.equal(refused.code, status.PERMISSION_DENIED);
  assert.equal(explain(refused).reason, "SCOPE_MISSING");
  const stranger = await failure(new Caller("rtp_nobody").cache(caches.get, get("a")));
  assert.equal(stranger.code, status.UNAUTHENTICATED);
  assert.equal(explain(stranger).reason, "API_KEY_INVALID");
}

async function entries({ cache }: Caller): Promise<void> {
  const value = Buffer.from("grüße ".repeat(200));
  const set = SetRequest.create({ key: "greeting", value, contentType: "text/plain", tags: ["welcome"], ttl: seconds(60) });
  const written = await cache(caches.set, set);
  assert(written.version > 0n);
  const { entry } = await cache(caches.get, get("greeting"));
  assert(entry && value.equals(entry.value));
  assert.deepEqual(entry.tags, ["welcome"]);
  const condition = SetCondition.SET_CONDITION_IF_ABSENT;
  const refused = await failure(cache(caches.set, SetRequest.create({ key: "greeting", condition })));
  assert.equal(refused.code, status.FAILED_PRECONDITION);
  assert.equal(explain(refused).reason, "CONDITION_NOT_MET");
  const swapped = await cache(caches.set, SetRequest.create({ key: "greeting", ifVersion: written.version }));
  assert(swapped.version > written.version);
  assert((await cache(caches.touch, TouchRequest.create({ key: "greeting", ttl: seconds(600) }))).found);
  assert((await cache(caches.delete, DeleteRequest.create({ key: "greeting" }))).deleted);

  await cache(caches.set, SetRequest.create({ key: "brief", value, ttl: { seconds: 0n, nanos: 50_000_000 } }));
  await new Promise((wake) => setTimeout(wake, 100));
  assert.equal((await cache(caches.get, get("brief"))).entry, undefined);
}

async function batches({ cache }: Caller): Promise<void> {
  const namespace = "users";
  const entries = [0, 1, 2].map((n) => SetEntry.create({ key: `user:${n}`, value: Buffer.from(`${n}`) }));
  entries.push(SetEntry.create({ key: "user:0", condition: SetCondition.SET_CONDITION_IF_ABSENT }));
  const { results } = await cache(caches.batchSet, BatchSetRequest.create({ namespace, entries }));
  assert.deepEqual(results.map((result) => result.status?.code ?? 0), [0, 0, 0, status.FAILED_PRECONDITION]);
  const names = ["user:2", "user:9", "user:0"];
  const found = await cache(caches.batchGet, BatchGetRequest.create({ namespace, keys: names }));
  assert.deepEqual(found.results.map((result) => result.entry?.value.toString()), ["2", undefined, "0"]);

  const listed: string[] = [];
  let pageToken = "";
  do {
    const request = ListKeysRequest.create({ namespace, prefix: "user:", pageSize: 2, pageToken });
    const page = await cache(caches.listKeys, request);
    listed.push(...page.keys.map((key) => key.key));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  assert.deepEqual(new Set(listed), new Set(["user:0", "user:1", "user:2"]));
}

async function badInput({ cache }: Caller): Promise<void> {
  const request = SetRequest.create({ namespace: "Not Allowed", key: "", ttl: seconds(-1) });
  const refused = await failure(cache(caches.set, request));
  assert.equal(refused.code, status.INVALID_ARGUMENT);
  assert.equal(explain(refused).reason, "VALIDATION_FAILED");
  const fields = detail(refused, "google.rpc.BadRequest", BadRequest)?.fieldViolations.map(({ field }) => field);
  assert.deepEqual(fields?.sort(), ["key", "namespace", "ttl"]);
  assert(detail(refused, "google.rpc.RequestInfo", RequestInfo)?.requestId);
}

async function sessions({ state }: Caller): Promise<void> {
  const data = { cart: ["tea"], step: 2 };
  const request = CreateSessionRequest.create({ userId: "ann", data, ttl: seconds(3600), requestId: randomUUID() });
  const { session } = await state(states.createSession, request);
  assert(session);
  const again = await state(states.createSession, request);
  assert.equal(again.session?.sessionId, session.sessionId);
  const { sessionId } = session;
  const read = await state(states.getSession, GetSessionRequest.create({ sessionId }));
  assert.deepEqual(read.session?.data, data);
  const listed = await state(states.listSessions, ListSessionsRequest.create({ userId: "ann" }));
  assert.deepEqual(listed.sessions.map((session) => session.sessionId), [sessionId]);
  await state(states.terminateSession, TerminateSessionRequest.create({ sessionId }));
  const gone = await failure(state(states.getSession, GetSessionRequest.create({ sessionId })));
  assert.equal(gone.code, status.NOT_FOUND);
  assert.equal(explain(gone).reason, "SESSION_NOT_FOUND");
}

async function streams(acme: Caller): Promise<void> {
  const namespace = "warm";
  const warmed = await new Promise<WarmCacheResponse>((answer, fail) => {
    const call = caches.warmCache(acme.metadata(), (error, response) => (error ? fail(error) : answer(response)));
    for (const chunk of [0, 1, 2]) {
      const entries = [...Array(10).keys()].map((n) => SetEntry.create({ key: `page:${chunk}:${n}`, value: Buffer.from("x") }));
      call.write(WarmCacheRequest.create({ namespace, entries }));
    }
    call.end();
  });
  assert.deepEqual([warmed.stored, warmed.failed], [30n, 0n]);

  const watch = caches.watchInvalidations(WatchInvalidationsRequest.create({ namespaces: [namespace] }), acme.metadata());
  const heard: (string | undefined)[] = [];
  let begun = false;
  for await (const { events } of watch) {
    if (!begun) {
      begun = true; // it watches from here on
      const target = { $case: "prefix", value: "page:1:" } as const;
      await acme.cache(caches.invalidateCache, InvalidateCacheRequest.create({ namespace, target }));
    }
    for (const { target } of events) heard.push(target?.$case === "prefix" ? target.value : undefined);
    if (heard.length > 0) break; // which cancels the call
  }
  assert.deepEqual(heard, ["page:1:"]);
}

async function deadlines({ cache }: Caller): Promise<void> {
  const late = await failure(cache(caches.get, get("k"), { deadline: Date.now() - 1 }));
  assert.equal(late.code, status.DEADLINE_EXCEEDED);
}

/** A limited call is made again when RetryInfo says, and then answers. */
async function rates(admin: Caller): Promise<void> {
  const tenantId = "hasty";
  const request = CreateTenantRequest.create({ tenantId, quotas: { operationsPerMinute: 2n } });
  const hasty = new Caller((await admin.tenant(tenants.createTenant, request)).secret);
  await hasty.cache(caches.get, get("k"));
  await hasty.cache(caches.get, get("k"));

  const refusals: ServiceError[] = [];
  const waits: number[] = [];
  const sleep = async (ms: number) => {
    // The wait is most of a minute: instead, the limit is lifted.
    if (waits.push(ms) === 1) {
      const tenant = { tenantId, quotas: { operationsPerMinute: 100_000n } };
      const change = UpdateTenantRequest.create({ tenant, updateMask: ["quotas"] });
      await admin.tenant(tenants.updateTenant, change);
    }
    await new Promise((wake) => setTimeout(wake, Math.min(ms, 50)));
  };
  const observed = (options: CallOptions) =>
    hasty.cache(caches.get, get("k"), options).catch((error: ServiceError) => {
      refusals.push(error);
      throw error;
    });
  const answer = await retry(observed, { repeatable: true, withinMs: 600_000, attempts: 1000, sleep });
  assert.equal(answer.entry, undefined);
  const first = refusals[0];
  assert(first);
  assert.equal(first.code, status.RESOURCE_EXHAUSTED);
  const { reason, delayMs } = explain(first);
  assert.equal(reason, "RATE_LIMITED");
  assert.equal(waits[0], delayMs);
  assert(delayMs && delayMs > 0 && delayMs <= 62_000, `${delayMs}`);
  // gRPC's own retries are told the same; see service_config.json.
  assert.equal(Number(first.metadata.get("grpc-retry-pushback-ms")[0]), Math.trunc(delayMs));
}

/** A call waits for a server that is away, and is carried out once. */
async function restart(admin: Caller, acme: Caller): Promise<void> {
  await acme.cache(caches.set, SetRequest.create({ key: "kept", value: Buffer.from("over a restart") }));
  await server.stop();
  const away = await failure(acme.cache(caches.get, get("kept")));
  assert.equal(away.code, status.UNAVAILABLE, away.message);

  let waits = 0;
  const sleep = (ms: number) => {
    if (waits++ === 0) server.start();
    return new Promise<void>((wake) => setTimeout(wake, ms));
  };
  const patience = { repeatable: true, withinMs: 120_000, attempts: 1000, sleep };
  const request = CreateTenantRequest.create({ tenantId: "late", requestId: randomUUID() });
  const created = await retry((options) => admin.tenant(tenants.createTenant, request, options), patience);
  assert.equal(created.tenant?.tenantId, "late");
  assert(waits > 0);
  const { entry } = await retry((options) => acme.cache(caches.get, get("kept"), options), patience);
  assert.equal(entry?.value.toString(), "over a restart");
}

const admin = new Caller(adminKey);
const acme = await createTenant(admin, "acme");
await keys(admin, acme);
await entries(acme);
await batches(acme);
await badInput(acme);
await sessions(acme);
await streams(acme);
await deadlines(acme);
await rates(admin);
await restart(admin, acme);
for (const client of [tenants, caches, states]) client.close();
server.complete();
