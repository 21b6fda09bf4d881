"""What a Python service does with ours: the tour of the README, and the errors.

usage: tour.py ADDRESS ADMIN_KEY STUBS

Uses nothing but grpcio and the stubs that stubs.py made in STUBS. Any surprise
ends it with an AssertionError.
"""

from __future__ import annotations

import datetime
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

from riptide.persistence.v1 import (  # noqa: E402
    cache_pb2,
    cache_service_pb2,
    cache_service_pb2_grpc,
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
    """A stub whose calls carry the key and a deadline."""

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


def main() -> None:
    options = [("grpc.max_receive_message_length", 64 << 20)]
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
        state(admin, acme)
    print("the tour is complete")


main()
