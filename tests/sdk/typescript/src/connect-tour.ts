// What a TypeScript service does with ours over @connectrpc/connect: keys, entries,
// sessions, streams, errors, retries.
//
// usage: node connect-tour.js ADDRESS ADMIN_KEY
//
// Uses what proto/buf.gen.connect.yaml makes, in ./connect. Any surprise ends it with an
// error. Whoever runs it stops and starts the server when it says so; see ./server.ts.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, RequestInfoSchema } from "./connect/google/rpc/error_details_pb.js";
import { SetCondition } from "./connect/riptide/persistence/v1/cache_pb.js";
import { CacheService, WarmCacheRequestSchema } from "./connect/riptide/persistence/v1/cache_service_pb.js";
import { StateService } from "./connect/riptide/persistence/v1/state_service_pb.js";
import { TenantService } from "./connect/riptide/persistence/v1/tenant_service_pb.js";
import { CheckpointState, Component } from "./connect/riptide/persistence/v1/checkpoint_pb.js";
import { explain, retry } from "./connect-retry.js";
import * as server from "./server.js";

const [address, adminKey] = process.argv.slice(2);

/** Puts a key on every call. */
function bearer(key: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
}

/** One connection carries all calls of a transport; what is idle is asked whether it stands. */
function connect(key: string): Transport {
  return createGrpcTransport({
    baseUrl: `http://${address}`, // https:// with nodeOptions: { ca } where it speaks TLS
    interceptors: [bearer(key)],
    defaultTimeoutMs: 20_000,
    pingIntervalMs: 20_000,
    pingTimeoutMs: 5_000,
    readMaxBytes: 64 << 20,
  });
}

interface Services {
  tenant: Client<typeof TenantService>;
  cache: Client<typeof CacheService>;
  state: Client<typeof StateService>;
}

function services(key: string): Services {
  const transport = connect(key);
  return {
    tenant: createClient(TenantService, transport),
    cache: createClient(CacheService, transport),
    state: createClient(StateService, transport),
  };
}

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array | undefined) => bytes && new TextDecoder().decode(bytes);
const seconds = (seconds: number) => ({ seconds: BigInt(seconds), nanos: 0 });

/** Makes a call that must fail. */
async function failure(call: Promise<unknown>): Promise<ConnectError> {
  const answer = await call.catch((error: unknown) => ConnectError.from(error));
  assert(answer instanceof ConnectError, `answered: ${answer}`);
  return answer;
}

/** Creates a tenant, and checks that a retry gives the same answer. */
async function createTenant(admin: Services, tenantId: string): Promise<string> {
  const request = { tenantId, plan: "basic", requestId: randomUUID() };
  const created = await admin.tenant.createTenant(request);
  assert.equal(created.tenant?.tenantId, tenantId);
  const again = await admin.tenant.createTenant(request);
  assert.equal(again.secret, created.secret);
  return created.secret;
}

async function keys(admin: Services, acme: Services): Promise<void> {
  const me = await acme.tenant.whoAmI({});
  assert.equal(me.tenantId, "acme");
  assert((await admin.tenant.whoAmI({})).admin);
  const { secret } = await admin.tenant.createApiKey({ tenantId: "acme", displayName: "reader", scopes: ["cache.read"] });
  const reader = services(secret);
  assert.equal((await reader.cache.get({ key: "nothing" })).entry, undefined);
  const refused = await failure(reader.cache.set({ key: "a", value: bytes("b") }));
  assert.equal(refused.code, Code.PermissionDenied);
  assert.equal(explain(refused).reason, "SCOPE_MISSING");
  const stranger = await failure(services("rtp_nobody").cache.get({ key: "a" }));
  assert.equal(stranger.code, Code.Unauthenticated);
  assert.equal(explain(stranger).reason, "API_KEY_INVALID");
}

async function entries({ cache }: Services): Promise<void> {
  const value = bytes("grüße ".repeat(200));
  const written = await cache.set({ key: "greeting", value, contentType: "text/plain", tags: ["welcome"], ttl: seconds(60) });
  assert(written.version > 0n);
  const { entry } = await cache.get({ key: "greeting" });
  assert.deepEqual(entry?.value, value);
  assert.deepEqual(entry?.tags, ["welcome"]);
  const condition = SetCondition.IF_ABSENT;
  const refused = await failure(cache.set({ key: "greeting", value: bytes("x"), condition }));
  assert.equal(refused.code, Code.FailedPrecondition);
  assert.equal(explain(refused).reason, "CONDITION_NOT_MET");
  const swapped = await cache.set({ key: "greeting", value: bytes("new"), ifVersion: written.version });
  assert(swapped.version > written.version);
  assert((await cache.touch({ key: "greeting", ttl: seconds(600) })).found);
  assert((await cache.delete({ key: "greeting" })).deleted);

  await cache.set({ key: "brief", value: bytes("x"), ttl: { seconds: 0n, nanos: 50_000_000 } });
  await new Promise((wake) => setTimeout(wake, 100));
  assert.equal((await cache.get({ key: "brief" })).entry, undefined);
}

async function batches({ cache }: Services): Promise<void> {
  const namespace = "users";
  const entries = [0, 1, 2].map((n) => ({ key: `user:${n}`, value: bytes(`${n}`) }));
  const refused = { key: "user:0", value: bytes("no"), condition: SetCondition.IF_ABSENT };
  const { results } = await cache.batchSet({ namespace, entries: [...entries, refused] });
  assert.deepEqual(results.map((result) => result.status?.code ?? 0), [0, 0, 0, Code.FailedPrecondition]);
  const found = await cache.batchGet({ namespace, keys: ["user:2", "user:9", "user:0"] });
  assert.deepEqual(found.results.map((result) => text(result.entry?.value)), ["2", undefined, "0"]);

  const listed: string[] = [];
  let pageToken = "";
  do {
    const page = await cache.listKeys({ namespace, prefix: "user:", pageSize: 2, pageToken });
    listed.push(...page.keys.map((key) => key.key));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  assert.deepEqual(new Set(listed), new Set(["user:0", "user:1", "user:2"]));
}

async function badInput({ cache }: Services): Promise<void> {
  const refused = await failure(cache.set({ namespace: "Not Allowed", key: "", ttl: seconds(-1) }));
  assert.equal(refused.code, Code.InvalidArgument);
  assert.equal(explain(refused).reason, "VALIDATION_FAILED");
  const fields = refused.findDetails(BadRequestSchema)[0]?.fieldViolations.map((violation) => violation.field);
  assert.deepEqual(fields?.sort(), ["key", "namespace", "ttl"]);
  assert(refused.findDetails(RequestInfoSchema)[0]?.requestId);
}

async function sessions({ state }: Services): Promise<void> {
  const request = { userId: "ann", data: { cart: ["tea"], step: 2 }, ttl: seconds(3600), requestId: randomUUID() };
  const { session } = await state.createSession(request);
  assert(session);
  const again = await state.createSession(request);
  assert.equal(again.session?.sessionId, session.sessionId);
  const { sessionId } = session;
  const read = await state.getSession({ sessionId });
  assert.deepEqual(read.session?.data, { cart: ["tea"], step: 2 });
  const listed = await state.listSessions({ userId: "ann" });
  assert.deepEqual(listed.sessions.map((session) => session.sessionId), [sessionId]);
  await state.terminateSession({ sessionId });
  const gone = await failure(state.getSession({ sessionId }));
  assert.equal(gone.code, Code.NotFound);
  assert.equal(explain(gone).reason, "SESSION_NOT_FOUND");
}

async function streams({ cache }: Services): Promise<void> {
  const namespace = "warm";
  async function* chunks() {
    for (const chunk of [0, 1, 2]) {
      const entries = [...Array(10).keys()].map((n) => ({ key: `page:${chunk}:${n}`, value: bytes("x") }));
      yield create(WarmCacheRequestSchema, { namespace, entries });
    }
  }
  const warmed = await cache.warmCache(chunks());
  assert.deepEqual([warmed.stored, warmed.failed], [30n, 0n]);

  const stop = new AbortController();
  const watch = cache.watchInvalidations({ namespaces: [namespace] }, { signal: stop.signal });
  const heard: (string | undefined)[] = [];
  let begun = false;
  try {
    for await (const { events } of watch) {
      if (!begun) {
        begun = true; // it watches from here on
        await cache.invalidateCache({ namespace, target: { case: "prefix", value: "page:1:" } });
      }
      heard.push(...events.map(({ target }) => (target.case === "prefix" ? target.value : undefined)));
      if (heard.length > 0) stop.abort();
    }
  } catch (thrown) {
    assert.equal(ConnectError.from(thrown).code, Code.Canceled);
  }
  assert.deepEqual(heard, ["page:1:"]);
}

async function checkpoints({ state }: Services): Promise<void> {
  const components = [Component.TENANTS, Component.CACHE];
  const steps: string[] = [];
  let checkpointId = "";
  for await (const { event } of state.createCheckpoint({ tenantIds: ["acme"], components, requestId: randomUUID() })) {
    if (event.case === "checkpoint") {
      assert.equal(event.value.state, CheckpointState.COMPLETE);
      checkpointId = event.value.checkpointId;
    }
    steps.push(event.case ?? "nothing");
  }
  assert.equal(steps.at(-1), "checkpoint");
  assert((await state.verifyCheckpoint({ checkpointId })).valid);
  await state.deleteCheckpoint({ checkpointId });
}

async function deadlines({ cache }: Services): Promise<void> {
  // Nothing else ends a stream that has nothing to tell; 0 would be no deadline.
  const watch = cache.watchInvalidations({ namespaces: ["quiet"] }, { timeoutMs: 200 });
  const read = async () => {
    for await (const { events } of watch) assert.deepEqual(events, []);
  };
  assert.equal((await failure(read())).code, Code.DeadlineExceeded);
}

/** A limited call is made again when RetryInfo says, and then answers. */
async function rates(admin: Services): Promise<void> {
  const tenantId = "hasty";
  const created = await admin.tenant.createTenant({ tenantId, quotas: { operationsPerMinute: 2n } });
  const { cache } = services(created.secret);
  await cache.get({ key: "k" });
  await cache.get({ key: "k" });

  const refusals: ConnectError[] = [];
  const waits: number[] = [];
  const sleep = async (ms: number) => {
    // The wait is most of a minute: instead, the limit is lifted.
    if (waits.push(ms) === 1) {
      const tenant = { tenantId, quotas: { operationsPerMinute: 100_000n } };
      await admin.tenant.updateTenant({ tenant, updateMask: { paths: ["quotas"] } });
    }
    await new Promise((wake) => setTimeout(wake, Math.min(ms, 50)));
  };
  const observed = (options: object) =>
    cache.get({ key: "k" }, options).catch((error: unknown) => {
      refusals.push(ConnectError.from(error));
      throw error;
    });
  const answer = await retry(observed, { repeatable: true, withinMs: 600_000, attempts: 1000, sleep });
  assert.equal(answer.entry, undefined);
  const first = refusals[0];
  assert(first);
  assert.equal(first.code, Code.ResourceExhausted);
  const { reason, delayMs } = explain(first);
  assert.equal(reason, "RATE_LIMITED");
  assert.equal(waits[0], delayMs);
  assert(delayMs && delayMs > 0 && delayMs <= 62_000, `${delayMs}`);
  assert.equal(Number(first.metadata.get("grpc-retry-pushback-ms")), Math.trunc(delayMs));
}

/** A call waits for a server that is away, and is carried out once. */
async function restart(admin: Services, acme: Services): Promise<void> {
  await acme.cache.set({ key: "kept", value: bytes("over a restart") });
  await server.stop();
  const away = await failure(acme.cache.get({ key: "kept" }));
  assert.equal(away.code, Code.Unavailable, away.message);

  let waits = 0;
  const sleep = (ms: number) => {
    if (waits++ === 0) server.start();
    return new Promise<void>((wake) => setTimeout(wake, ms));
  };
  const patience = { repeatable: true, withinMs: 120_000, attempts: 1000, sleep };
  const request = { tenantId: "late", requestId: randomUUID() };
  const created = await retry((options) => admin.tenant.createTenant(request, options), patience);
  assert.equal(created.tenant?.tenantId, "late");
  assert(waits > 0);
  const { entry } = await retry((options) => acme.cache.get({ key: "kept" }, options), patience);
  assert.equal(text(entry?.value), "over a restart");
}

const admin = services(adminKey);
const acme = services(await createTenant(admin, "acme"));
await keys(admin, acme);
await entries(acme);
await batches(acme);
await badInput(acme);
await sessions(acme);
await streams(acme);
await checkpoints(admin);
await deadlines(acme);
await rates(admin);
await restart(admin, acme);
server.complete();
process.exit(0); // connections that are idle would keep it
