"""What a Python service does with ours: tenants, keys, entries, sessions, streams,
errors, retries.

usage: tour.py ADDRESS ADMIN_KEY STUBS

Uses nothing but grpcio and the stubs that buf made in STUBS by
proto/buf.gen.python.yaml. Any surprise ends it with an AssertionError. Whoever runs it
stops and starts the server when it says so; see `restart`.
"""

from __future__ import annotations

import datetime
import pathlib
import sys
import time
import uuid

import grpc
from google.protobuf import duration_pb2, field_mask_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

address, admin_key, stubs = sys.argv[1:]
sys.path.insert(0, stubs)

import retry  # noqa: E402
from riptide.persistence.v1 import (  # noqa: E402
    cache_pb2,
    cache_service_pb2,
    cache_service_pb2_grpc,
    checkpoint_pb2,
    session_pb2,
    state_service_pb2,
    state_service_pb2_grpc,
    tenant_pb2,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
)

SECONDS = 20  # for each call: only what hangs takes as long


class Client:
    """The three services, called with one key."""

    def __init__(self, channel: grpc.Channel, key: str | None):
        self.tenant = Service(tenant_service_pb2_grpc.TenantServiceStub(channel), key)
        self.cache = Service(cache_service_pb2_grpc.CacheServiceStub(channel), key)
        self.state = Service(state_service_pb2_grpc.StateServiceStub(channel), key)


class Service:
    """A stub whose calls carry the key and a deadline, and are made once.

    Over TLS the key can go with the channel: `grpc.composite_channel_credentials` of
    `grpc.ssl_channel_credentials(ca)` and `grpc.access_token_call_credentials(key)`.
    gRPC for Python sends such credentials over nothing less.
    """

    def __init__(self, stub, key: str | None):
        self.stub = stub
        self.metadata = [("authorization", f"Bearer {key}")] if key else []

    def __getattr__(self, rpc: str):
        call = getattr(self.stub, rpc)
        return lambda request: call(request, metadata=self.metadata, timeout=SECONDS)


class Failure:
    """What a call failed with, details unpacked."""

    def __init__(self, error: grpc.RpcError):
        self.code = error.code()
        self.text = error.details()
        status = rpc_status.from_call(error)
        assert status is not None, f"{self.code}: no details"
        self.details = {}
        for detail in status.details:
            name = detail.type_url.rsplit(".", 1)[-1]
            self.details[name] = getattr(error_details_pb2, name).FromString(detail.value)
        self.reason = self.details["ErrorInfo"].reason
        assert self.details["ErrorInfo"].domain == "persistence.riptide"
        assert self.details["RequestInfo"].request_id


def failure(call, request) -> Failure:
    """Makes a call that must fail."""
    try:
        answer = call(request)
    except grpc.RpcError as error:
        return Failure(error)
    raise AssertionError(f"answered: {answer}")


def failure_within_a_second(call, request) -> Failure:
    """Makes a call that must come to fail in the time a revocation may take."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        try:
            call(request)
        except grpc.RpcError as error:
            return Failure(error)
        time.sleep(0.02)
    return failure(call, request)


def seconds(value: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromTimedelta(datetime.timedelta(seconds=value))
    return duration


def health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ["", "riptide.persistence.v1.CacheService", "riptide.persistence.v1.TenantService"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


def create_tenant(admin: Client, tenant_id: str) -> tuple[tenant_pb2.Tenant, str]:
    """Creates a tenant, and checks that a retry gives the same answer."""
    request = tenant_service_pb2.CreateTenantRequest(
        tenant_id=tenant_id,
        display_name=f"The tenant {tenant_id}",
        plan="basic",
        labels={"env": "test"},
        request_id=str(uuid.uuid4()),
    )
    created = admin.tenant.CreateTenant(request)
    assert created.tenant.tenant_id == tenant_id
    assert created.tenant.state == tenant_pb2.TENANT_STATE_ACTIVE
    assert created.tenant.effective_quotas.memory_bytes > 0
    assert created.secret.startswith("rtp_")
    again = admin.tenant.CreateTenant(request)
    assert again.tenant == created.tenant and again.secret == created.secret
    return created.tenant, created.secret


def tenants(admin: Client) -> None:
    tenant, _ = create_tenant(admin, "managed")
    listed = admin.tenant.ListTenants(tenant_service_pb2.ListTenantsRequest(labels={"env": "test"}))
    assert "managed" in [tenant.tenant_id for tenant in listed.tenants]

    change = tenant_service_pb2.UpdateTenantRequest(
        tenant=tenant_pb2.Tenant(tenant_id="managed", display_name="Renamed", etag=tenant.etag),
        update_mask=field_mask_pb2.FieldMask(paths=["display_name"]),
    )
    assert admin.tenant.UpdateTenant(change).tenant.display_name == "Renamed"
    stale = failure(admin.tenant.UpdateTenant, change)
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")

    admin.tenant.DeleteTenant(tenant_service_pb2.DeleteTenantRequest(tenant_id="managed"))
    report = admin.tenant.PurgeTenant(tenant_service_pb2.PurgeTenantRequest(tenant_id="managed")).report
    assert report.api_keys == 1, report
    gone = failure(admin.tenant.GetTenant, tenant_service_pb2.GetTenantRequest(tenant_id="managed"))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    assert gone.details["ResourceInfo"].resource_name == "managed"


def keys(channel: grpc.Channel, admin: Client, acme: Client) -> None:
    me = acme.tenant.WhoAmI(tenant_service_pb2.WhoAmIRequest())
    assert me.tenant_id == "acme" and not me.admin and "cache.read" in me.scopes
    assert admin.tenant.WhoAmI(tenant_service_pb2.WhoAmIRequest()).admin

    created = admin.tenant.CreateApiKey(
        tenant_service_pb2.CreateApiKeyRequest(tenant_id="acme", display_name="reader", scopes=["cache.read"])
    )
    reader = Client(channel, created.secret)
    assert not reader.cache.Get(cache_service_pb2.GetRequest(key="nothing")).HasField("entry")
    refused = failure(reader.cache.Set, cache_service_pb2.SetRequest(key="a", value=b"b"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")

    key_id = created.api_key.key_id
    rotated = admin.tenant.RotateApiKey(tenant_service_pb2.RotateApiKeyRequest(key_id=key_id, overlap=seconds(60)))
    assert rotated.api_key.key_id == key_id and rotated.secret != created.secret
    Client(channel, rotated.secret).cache.Get(cache_service_pb2.GetRequest(key="nothing"))
    reader.cache.Get(cache_service_pb2.GetRequest(key="nothing"))  # the old secret, within the overlap

    listed = admin.tenant.ListApiKeys(tenant_service_pb2.ListApiKeysRequest(tenant_id="acme")).api_keys
    assert key_id in [key.key_id for key in listed] and len(listed) == 2
    admin.tenant.RevokeApiKey(tenant_service_pb2.RevokeApiKeyRequest(key_id=key_id))
    revoked = failure_within_a_second(reader.cache.Get, cache_service_pb2.GetRequest(key="nothing"))
    assert (revoked.code, revoked.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
    missing = failure(Client(channel, None).cache.Get, cache_service_pb2.GetRequest(key="nothing"))
    assert (missing.code, missing.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")


def entries(acme: Client) -> None:
    value = "grüße \N{WAVING HAND SIGN}".encode() * 200
    written = acme.cache.Set(
        cache_service_pb2.SetRequest(key="greeting", value=value, content_type="text/plain", tags=["welcome"], ttl=seconds(60))
    )
    assert written.version > 0 and 0 < written.stored_bytes < len(value), "it compresses well"
    entry = acme.cache.Get(cache_service_pb2.GetRequest(key="greeting")).entry
    assert (entry.value, entry.content_type, list(entry.tags)) == (value, "text/plain", ["welcome"])
    assert (entry.version, entry.size_bytes) == (written.version, len(value))
    assert entry.expire_time == written.expire_time
    life = entry.expire_time.ToMilliseconds() - entry.create_time.ToMilliseconds()
    # A replica stamps the creation before the commit, the store the expiry in it.
    assert 59_000 < life < 70_000, life

    absent = cache_service_pb2.SetRequest(key="greeting", value=b"x", condition=cache_pb2.SET_CONDITION_IF_ABSENT)
    refused = failure(acme.cache.Set, absent)
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONDITION_NOT_MET")
    swapped = acme.cache.Set(cache_service_pb2.SetRequest(key="greeting", value=b"new", if_version=written.version))
    assert swapped.version > written.version

    touched = acme.cache.Touch(cache_service_pb2.TouchRequest(key="greeting", ttl=seconds(600)))
    assert touched.found and touched.expire_time.seconds > written.expire_time.seconds
    assert not acme.cache.Touch(cache_service_pb2.TouchRequest(key="nothing", ttl=seconds(1))).found
    assert acme.cache.Delete(cache_service_pb2.DeleteRequest(key="greeting")).deleted
    assert not acme.cache.Delete(cache_service_pb2.DeleteRequest(key="greeting")).deleted

    # The time to live is kept to the millisecond, by the store's clock.
    acme.cache.Set(cache_service_pb2.SetRequest(key="brief", value=b"x", ttl=seconds(0.05)))
    time.sleep(0.1)
    assert not acme.cache.Get(cache_service_pb2.GetRequest(key="brief")).HasField("entry")


def batches(acme: Client) -> None:
    writes = [cache_pb2.SetEntry(key=f"user:{n}", value=b"%d" % n) for n in range(3)]
    writes.append(cache_pb2.SetEntry(key="user:0", value=b"no", condition=cache_pb2.SET_CONDITION_IF_ABSENT))
    results = acme.cache.BatchSet(cache_service_pb2.BatchSetRequest(namespace="users", entries=writes)).results
    assert [result.status.code for result in results] == [0, 0, 0, grpc.StatusCode.FAILED_PRECONDITION.value[0]]
    names = ["user:2", "user:9", "user:0"]
    results = acme.cache.BatchGet(cache_service_pb2.BatchGetRequest(namespace="users", keys=names)).results
    assert [result.key for result in results] == names
    assert [result.entry.value if result.HasField("entry") else None for result in results] == [b"2", None, b"0"]

    listed, token = [], ""
    while True:
        request = cache_service_pb2.ListKeysRequest(namespace="users", prefix="user:", page_size=2, page_token=token)
        page = acme.cache.ListKeys(request)
        listed += [key.key for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert sorted(set(listed)) == ["user:0", "user:1", "user:2"]

    gone = acme.cache.InvalidateCache(
        cache_service_pb2.InvalidateCacheRequest(namespace="users", keys=cache_pb2.Keys(keys=["user:0", "user:9"]))
    )
    assert gone.invalidated == 1
    results = acme.cache.BatchDelete(cache_service_pb2.BatchDeleteRequest(namespace="users", keys=["user:0", "user:1"])).results
    assert [result.deleted for result in results] == [False, True]
    acme.cache.InvalidateCache(cache_service_pb2.InvalidateCacheRequest(namespace="users", whole_namespace=True))
    assert not acme.cache.Get(cache_service_pb2.GetRequest(namespace="users", key="user:2")).HasField("entry")


def bad_input(acme: Client) -> None:
    request = cache_service_pb2.SetRequest(namespace="Not Allowed", key="", value=b"", ttl=seconds(-1))
    refused = failure(acme.cache.Set, request)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")
    fields = {violation.field for violation in refused.details["BadRequest"].field_violations}
    assert fields == {"namespace", "key", "ttl"}, fields
    names = [f"k{n}" for n in range(1001)]
    refused = failure(acme.cache.BatchGet, cache_service_pb2.BatchGetRequest(keys=names))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE")


def isolation(acme: Client, globex: Client) -> None:
    acme.cache.Set(cache_service_pb2.SetRequest(key="shared", value=b"acme"))
    assert not globex.cache.Get(cache_service_pb2.GetRequest(key="shared")).HasField("entry")
    globex.cache.Set(cache_service_pb2.SetRequest(key="shared", value=b"globex"))
    assert acme.cache.Get(cache_service_pb2.GetRequest(key="shared")).entry.value == b"acme"

    # Whether the other tenant exists cannot be told.
    refusals = [
        failure(globex.cache.Get, cache_service_pb2.GetRequest(tenant_id=other, key="shared")) for other in ["acme", "nobody"]
    ]
    assert {refused.reason for refused in refusals} == {"TENANT_MISMATCH"}
    assert refusals[0].text == refusals[1].text

    globex.cache.InvalidateCache(cache_service_pb2.InvalidateCacheRequest(whole_tenant=True))
    assert not globex.cache.Get(cache_service_pb2.GetRequest(key="shared")).HasField("entry")
    assert acme.cache.Get(cache_service_pb2.GetRequest(key="shared")).entry.value == b"acme"


def state(admin: Client, acme: Client) -> None:
    info = acme.state.GetServerInfo(state_service_pb2.GetServerInfoRequest())
    assert info.version and info.backend in ("redis", "embedded") and info.limits.batch_items == 1000
    values = admin.state.GetConfig(state_service_pb2.GetConfigRequest()).values
    assert "server.listen" in [value.path for value in values]


def sessions(acme: Client) -> None:
    request = session_pb2.CreateSessionRequest(
        user_id="ann", attributes={"device": "phone"}, ttl=seconds(3600), request_id=str(uuid.uuid4())
    )
    request.data.update({"cart": ["tea", "milk"], "step": 2})
    session = acme.state.CreateSession(request).session
    again = acme.state.CreateSession(request).session
    assert again.session_id == session.session_id, "a request_id is carried out once"
    read = acme.state.GetSession(session_pb2.GetSessionRequest(session_id=session.session_id)).session
    assert list(read.data["cart"]) == ["tea", "milk"] and read.attributes["device"] == "phone"

    change = session_pb2.UpdateSessionRequest(
        session=session_pb2.Session(session_id=session.session_id, attributes={"device": "desk"}, etag=session.etag),
        update_mask=field_mask_pb2.FieldMask(paths=["attributes"]),
    )
    assert acme.state.UpdateSession(change).session.attributes["device"] == "desk"
    stale = failure(acme.state.UpdateSession, change)
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")

    other = acme.state.CreateSession(session_pb2.CreateSessionRequest(user_id="ann", ttl=seconds(60))).session
    listed = acme.state.ListSessions(session_pb2.ListSessionsRequest(user_id="ann")).sessions
    assert {entry.session_id for entry in listed} == {session.session_id, other.session_id}
    ended = acme.state.TerminateSessions(
        session_pb2.TerminateSessionsRequest(user_id="ann", except_session_id=other.session_id)
    )
    assert ended.terminated == 1
    acme.state.TerminateSession(session_pb2.TerminateSessionRequest(session_id=other.session_id))
    gone = failure(acme.state.GetSession, session_pb2.GetSessionRequest(session_id=session.session_id))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def streams(acme: Client) -> None:
    """Warms entries by a stream of ours, and hears of their removal by one of the server's."""
    chunks = [
        cache_service_pb2.WarmCacheRequest(
            namespace="warm", entries=[cache_pb2.SetEntry(key=f"page:{chunk}:{n}", value=b"x") for n in range(10)]
        )
        for chunk in range(3)
    ]
    warmed = acme.cache.WarmCache(iter(chunks))
    assert (warmed.stored, warmed.failed) == (30, 0), warmed

    watch = acme.cache.stub.WatchInvalidations(
        cache_service_pb2.WatchInvalidationsRequest(namespaces=["warm"]), metadata=acme.cache.metadata, timeout=SECONDS
    )
    token = next(watch).resume_token  # it watches from here on
    acme.cache.InvalidateCache(cache_service_pb2.InvalidateCacheRequest(namespace="warm", prefix="page:1:"))
    assert prefixes(watch, 1) == ["page:1:"]
    watch.cancel()

    # Who brings a token hears of all that happened since, watched or not.
    acme.cache.InvalidateCache(cache_service_pb2.InvalidateCacheRequest(namespace="warm", prefix="page:2:"))
    watch = acme.cache.stub.WatchInvalidations(
        cache_service_pb2.WatchInvalidationsRequest(namespaces=["warm"], resume_token=token),
        metadata=acme.cache.metadata,
        timeout=SECONDS,
    )
    assert prefixes(watch, 2) == ["page:1:", "page:2:"]
    watch.cancel()


def prefixes(watch, count: int) -> list[str]:
    """The first prefixes that a watcher hears of, among signs of life."""
    heard = []
    for answer in watch:
        heard += [event.prefix for event in answer.events]
        if len(heard) >= count:
            return heard
    raise AssertionError("the stream ended")


def checkpoints(admin: Client) -> None:
    request = checkpoint_pb2.CreateCheckpointRequest(
        tenant_ids=["acme"],
        components=[checkpoint_pb2.COMPONENT_TENANTS, checkpoint_pb2.COMPONENT_CACHE],
        request_id=str(uuid.uuid4()),
    )
    *_, last = admin.state.CreateCheckpoint(request)
    checkpoint = last.checkpoint
    assert checkpoint.state == checkpoint_pb2.CHECKPOINT_STATE_COMPLETE, last
    listed = admin.state.ListCheckpoints(checkpoint_pb2.ListCheckpointsRequest()).checkpoints
    assert checkpoint.checkpoint_id in [entry.checkpoint_id for entry in listed]
    named = {"checkpoint_id": checkpoint.checkpoint_id}
    assert admin.state.VerifyCheckpoint(checkpoint_pb2.VerifyCheckpointRequest(**named)).valid
    admin.state.DeleteCheckpoint(checkpoint_pb2.DeleteCheckpointRequest(**named))
    gone = failure(admin.state.GetCheckpoint, checkpoint_pb2.GetCheckpointRequest(**named))
    assert gone.reason == "CHECKPOINT_NOT_FOUND"


def deadlines(acme: Client) -> None:
    # Nothing else ends a stream that has nothing to tell.
    request = cache_service_pb2.WatchInvalidationsRequest(namespaces=["quiet"])
    try:
        for answer in acme.cache.stub.WatchInvalidations(request, metadata=acme.cache.metadata, timeout=0.2):
            assert not answer.events
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    else:
        raise AssertionError("the stream ended by itself")


def rates(channel: grpc.Channel, admin: Client) -> None:
    """A limited call is made again when RetryInfo says, and then answers."""
    request = tenant_service_pb2.CreateTenantRequest(
        tenant_id="hasty", quotas=tenant_pb2.Quotas(operations_per_minute=2)
    )
    hasty = Client(channel, admin.tenant.CreateTenant(request).secret).cache
    get = cache_service_pb2.GetRequest(key="k")
    hasty.Get(get), hasty.Get(get)

    refusals, waits = [], []

    def observed(request, **options):
        try:
            return hasty.stub.Get(request, **options)
        except grpc.RpcError as error:
            refusals.append(Failure(error))
            refusals[-1].trailers = dict(error.trailing_metadata())
            raise

    def sleep(wait: float) -> None:
        # The wait is most of a minute: instead, the limit is lifted.
        if not waits:
            lifted = tenant_pb2.Tenant(tenant_id="hasty", quotas=tenant_pb2.Quotas(operations_per_minute=100_000))
            mask = field_mask_pb2.FieldMask(paths=["quotas"])
            admin.tenant.UpdateTenant(tenant_service_pb2.UpdateTenantRequest(tenant=lifted, update_mask=mask))
        waits.append(wait)
        time.sleep(min(wait, 0.05))

    answer = retry.call(
        observed, get, repeatable=True, within=600, attempts=1000, sleep=sleep, metadata=hasty.metadata
    )
    assert not answer.HasField("entry")
    first = refusals[0]
    assert (first.code, first.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    told = first.details["RetryInfo"].retry_delay
    assert waits[0] == told.ToTimedelta().total_seconds() and 0 < waits[0] <= 62, waits
    # gRPC's own retries are told the same; see service_config.json.
    assert int(first.trailers["grpc-retry-pushback-ms"]) == told.ToMilliseconds()


def restart(channel: grpc.Channel, admin: Client, acme: Client) -> None:
    """A call waits for a server that is away, and is carried out once."""
    acme.cache.Set(cache_service_pb2.SetRequest(key="kept", value=b"over a restart"))
    print("stop the server", flush=True)
    assert sys.stdin.readline() == "stopped\n"
    get = cache_service_pb2.GetRequest(key="kept")
    try:
        acme.cache.Get(get)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    else:
        raise AssertionError("answered")

    waits = []

    def sleep(wait: float) -> None:
        if not waits:
            print("start the server", flush=True)
        waits.append(wait)
        time.sleep(wait)

    patience = {"repeatable": True, "within": 120, "attempts": 1000, "sleep": sleep}
    request = tenant_service_pb2.CreateTenantRequest(tenant_id="late", request_id=str(uuid.uuid4()))
    created = retry.call(admin.tenant.stub.CreateTenant, request, metadata=admin.tenant.metadata, **patience)
    assert created.tenant.tenant_id == "late" and waits
    entry = retry.call(acme.cache.stub.Get, get, metadata=acme.cache.metadata, **patience).entry
    assert entry.value == b"over a restart"


def main() -> None:
    config = pathlib.Path(__file__).parent.parent / "service_config.json"
    options = [
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # gRPC's own retries: of reads, and of UNAVAILABLE alone. They know no RetryInfo.
        ("grpc.service_config", config.read_text()),
        # How long a channel waits at most before it reaches for a server again.
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    with grpc.insecure_channel(address, options=options) as channel:
        health(channel)
        admin = Client(channel, admin_key)
        acme = Client(channel, create_tenant(admin, "acme")[1])
        globex = Client(channel, create_tenant(admin, "globex")[1])
        tenants(admin)
        keys(channel, admin, acme)
        entries(acme)
        batches(acme)
        bad_input(acme)
        isolation(acme, globex)
        sessions(acme)
        streams(acme)
        checkpoints(admin)
        deadlines(acme)
        rates(channel, admin)
        state(admin, acme)
        restart(channel, admin, acme)
    print("the tour is complete")


main()
