// What a Go service does with ours: keys, entries, sessions, streams, errors, retries.
//
// usage: tour ADDRESS ADMIN_KEY SERVICE_CONFIG
//
// Uses what proto/buf.gen.go.yaml makes. Any surprise ends it with a panic. Whoever runs
// it stops and starts the server when it says so; see restart.

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	v1 "riptide.example/persistence/v1"
)

// bearer is a key as the credentials of a call. It is sent over plaintext too, which only
// loopback should see.
type bearer string

func (key bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// services are called with one key.
type services struct {
	tenant v1.TenantServiceClient
	cache  v1.CacheServiceClient
	state  v1.StateServiceClient
	key    grpc.CallOption
}

func with(conn grpc.ClientConnInterface, key string) services {
	return services{
		tenant: v1.NewTenantServiceClient(conn),
		cache:  v1.NewCacheServiceClient(conn),
		state:  v1.NewStateServiceClient(conn),
		key:    grpc.PerRPCCredentials(bearer(key)),
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func assert(holds bool, about ...interface{}) {
	if !holds {
		panic(fmt.Sprint(about...))
	}
}

// fails checks the code and the reason of an error.
func fails(err error, code codes.Code, reason string) {
	told, _ := Explain(err)
	assert(status.Code(err) == code && told == reason, "not ", code, " ", reason, ": ", err)
}

// requestID makes a UUID.
func requestID() string {
	var id [16]byte
	must(rand.Read(id[:]))
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func health(ctx context.Context, conn grpc.ClientConnInterface) {
	answer := must(grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}))
	assert(answer.Status == grpc_health_v1.HealthCheckResponse_SERVING, answer)
}

// createTenant creates a tenant, and checks that a retry gives the same answer.
func createTenant(ctx context.Context, admin services, tenantID string) string {
	request := &v1.CreateTenantRequest{TenantId: tenantID, Plan: "basic", RequestId: requestID()}
	created := must(admin.tenant.CreateTenant(ctx, request, admin.key))
	assert(created.Tenant.TenantId == tenantID, created)
	again := must(admin.tenant.CreateTenant(ctx, request, admin.key))
	assert(again.Secret == created.Secret, "another secret")
	return created.Secret
}

func keys(ctx context.Context, conn grpc.ClientConnInterface, admin, acme services) {
	me := must(acme.tenant.WhoAmI(ctx, &v1.WhoAmIRequest{}, acme.key))
	assert(me.TenantId == "acme" && !me.Admin, me)
	request := &v1.CreateApiKeyRequest{TenantId: "acme", DisplayName: "reader", Scopes: []string{"cache.read"}}
	reader := with(conn, must(admin.tenant.CreateApiKey(ctx, request, admin.key)).Secret)
	assert(must(reader.cache.Get(ctx, &v1.GetRequest{Key: "nothing"}, reader.key)).Entry == nil, "an entry")
	_, err := reader.cache.Set(ctx, &v1.SetRequest{Key: "a"}, reader.key)
	fails(err, codes.PermissionDenied, "SCOPE_MISSING")
	stranger := with(conn, "rtp_nobody")
	_, err = stranger.cache.Get(ctx, &v1.GetRequest{Key: "a"}, stranger.key)
	fails(err, codes.Unauthenticated, "API_KEY_INVALID")
}

func entries(ctx context.Context, acme services) {
	set := &v1.SetRequest{
		Key: "greeting", Value: []byte("grüße"), ContentType: "text/plain", Tags: []string{"welcome"},
		Ttl: durationpb.New(time.Minute),
	}
	written := must(acme.cache.Set(ctx, set, acme.key))
	entry := must(acme.cache.Get(ctx, &v1.GetRequest{Key: "greeting"}, acme.key)).Entry
	assert(string(entry.Value) == "grüße" && entry.Version == written.Version, entry)
	absent := &v1.SetRequest{Key: "greeting", Condition: v1.SetCondition_SET_CONDITION_IF_ABSENT}
	_, err := acme.cache.Set(ctx, absent, acme.key)
	fails(err, codes.FailedPrecondition, "CONDITION_NOT_MET")
	swap := &v1.SetRequest{Key: "greeting", Value: []byte("new"), IfVersion: written.Version}
	assert(must(acme.cache.Set(ctx, swap, acme.key)).Version > written.Version, "no new version")
	touch := &v1.TouchRequest{Key: "greeting", Ttl: durationpb.New(time.Hour)}
	assert(must(acme.cache.Touch(ctx, touch, acme.key)).Found, "not found")
	assert(must(acme.cache.Delete(ctx, &v1.DeleteRequest{Key: "greeting"}, acme.key)).Deleted, "not deleted")

	brief := &v1.SetRequest{Key: "brief", Value: []byte("x"), Ttl: durationpb.New(50 * time.Millisecond)}
	must(acme.cache.Set(ctx, brief, acme.key))
	time.Sleep(100 * time.Millisecond)
	assert(must(acme.cache.Get(ctx, &v1.GetRequest{Key: "brief"}, acme.key)).Entry == nil, "it has outlived itself")
}

func batches(ctx context.Context, acme services) {
	var writes []*v1.SetEntry
	for n := 0; n < 3; n++ {
		writes = append(writes, &v1.SetEntry{Key: "user:" + strconv.Itoa(n), Value: []byte(strconv.Itoa(n))})
	}
	writes = append(writes, &v1.SetEntry{Key: "user:0", Condition: v1.SetCondition_SET_CONDITION_IF_ABSENT})
	written := must(acme.cache.BatchSet(ctx, &v1.BatchSetRequest{Namespace: "users", Entries: writes}, acme.key))
	for n, result := range written.Results {
		want := codes.OK
		if n == 3 {
			want = codes.FailedPrecondition
		}
		assert(codes.Code(result.Status.GetCode()) == want, result)
	}
	names := []string{"user:2", "user:9", "user:0"}
	read := must(acme.cache.BatchGet(ctx, &v1.BatchGetRequest{Namespace: "users", Keys: names}, acme.key))
	var values []string
	for _, result := range read.Results {
		values = append(values, string(result.Entry.GetValue()))
	}
	assert(reflect.DeepEqual(values, []string{"2", "", "0"}), values)

	listed := map[string]bool{}
	request := &v1.ListKeysRequest{Namespace: "users", Prefix: "user:", PageSize: 2}
	for {
		page := must(acme.cache.ListKeys(ctx, request, acme.key))
		for _, key := range page.Keys {
			listed[key.Key] = true
		}
		if page.NextPageToken == "" {
			break
		}
		request.PageToken = page.NextPageToken
	}
	assert(len(listed) == 3, listed)
}

func badInput(ctx context.Context, acme services) {
	request := &v1.SetRequest{Namespace: "Not Allowed", Ttl: durationpb.New(-time.Second)}
	_, err := acme.cache.Set(ctx, request, acme.key)
	fails(err, codes.InvalidArgument, "VALIDATION_FAILED")
	fields := map[string]bool{}
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				fields[violation.Field] = true
			}
		}
	}
	assert(reflect.DeepEqual(fields, map[string]bool{"namespace": true, "key": true, "ttl": true}), fields)
}

func sessions(ctx context.Context, acme services) {
	data := must(structpb.NewStruct(map[string]interface{}{"step": 2}))
	request := &v1.CreateSessionRequest{UserId: "ann", Data: data, Ttl: durationpb.New(time.Hour), RequestId: requestID()}
	session := must(acme.state.CreateSession(ctx, request, acme.key)).Session
	again := must(acme.state.CreateSession(ctx, request, acme.key)).Session
	assert(again.SessionId == session.SessionId, "another session")
	named := &v1.GetSessionRequest{SessionId: session.SessionId}
	read := must(acme.state.GetSession(ctx, named, acme.key)).Session
	assert(read.Data.Fields["step"].GetNumberValue() == 2, read)
	listed := must(acme.state.ListSessions(ctx, &v1.ListSessionsRequest{UserId: "ann"}, acme.key)).Sessions
	assert(len(listed) == 1, listed)
	must(acme.state.TerminateSession(ctx, &v1.TerminateSessionRequest{SessionId: session.SessionId}, acme.key))
	_, err := acme.state.GetSession(ctx, named, acme.key)
	fails(err, codes.NotFound, "SESSION_NOT_FOUND")
}

func streams(ctx context.Context, acme services) {
	warming := must(acme.cache.WarmCache(ctx, acme.key))
	for chunk := 0; chunk < 3; chunk++ {
		request := &v1.WarmCacheRequest{Namespace: "warm"}
		for n := 0; n < 10; n++ {
			key := fmt.Sprintf("page:%d:%d", chunk, n)
			request.Entries = append(request.Entries, &v1.SetEntry{Key: key, Value: []byte("x")})
		}
		must(0, warming.Send(request))
	}
	warmed := must(warming.CloseAndRecv())
	assert(warmed.Stored == 30 && warmed.Failed == 0, warmed)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := must(acme.cache.WatchInvalidations(ctx, &v1.WatchInvalidationsRequest{Namespaces: []string{"warm"}}, acme.key))
	must(watch.Recv()) // it watches from here on
	gone := &v1.InvalidateCacheRequest{Namespace: "warm", Target: &v1.InvalidateCacheRequest_Prefix{Prefix: "page:1:"}}
	must(acme.cache.InvalidateCache(ctx, gone, acme.key))
	for {
		// What comes without events is a sign of life.
		if events := must(watch.Recv()).Events; len(events) > 0 {
			assert(events[0].GetPrefix() == "page:1:", events)
			return
		}
	}
}

func checkpoints(ctx context.Context, admin services) {
	request := &v1.CreateCheckpointRequest{
		TenantIds:  []string{"acme"},
		Components: []v1.Component{v1.Component_COMPONENT_TENANTS, v1.Component_COMPONENT_CACHE},
		RequestId:  requestID(),
	}
	taking := must(admin.state.CreateCheckpoint(ctx, request, admin.key))
	var checkpoint *v1.Checkpoint
	for {
		answer, err := taking.Recv()
		if err == io.EOF {
			break
		}
		checkpoint = must(answer, err).GetCheckpoint()
	}
	assert(checkpoint.GetState() == v1.CheckpointState_CHECKPOINT_STATE_COMPLETE, checkpoint)
	named := &v1.VerifyCheckpointRequest{CheckpointId: checkpoint.CheckpointId}
	assert(must(admin.state.VerifyCheckpoint(ctx, named, admin.key)).Valid, "not valid")
	must(admin.state.DeleteCheckpoint(ctx, &v1.DeleteCheckpointRequest{CheckpointId: checkpoint.CheckpointId}, admin.key))
}

func deadlines(ctx context.Context, acme services) {
	ctx, cancel := context.WithTimeout(ctx, time.Microsecond)
	defer cancel()
	_, err := acme.cache.Get(ctx, &v1.GetRequest{Key: "k"}, acme.key)
	assert(status.Code(err) == codes.DeadlineExceeded, err)
}

// rates shows that a limited call is made again when RetryInfo says, and then answers.
func rates(ctx context.Context, conn grpc.ClientConnInterface, admin services) {
	few, many := int64(2), int64(100_000)
	request := &v1.CreateTenantRequest{TenantId: "hasty", Quotas: &v1.Quotas{OperationsPerMinute: &few}}
	hasty := with(conn, must(admin.tenant.CreateTenant(ctx, request, admin.key)).Secret)
	get := &v1.GetRequest{Key: "k"}
	must(hasty.cache.Get(ctx, get, hasty.key))
	must(hasty.cache.Get(ctx, get, hasty.key))

	var refusals []error
	var pushbacks []string
	var waits []time.Duration
	sleep := func(ctx context.Context, wait time.Duration) error {
		// The wait is most of a minute: instead, the limit is lifted.
		if len(waits) == 0 {
			tenant := &v1.Tenant{TenantId: "hasty", Quotas: &v1.Quotas{OperationsPerMinute: &many}}
			change := &v1.UpdateTenantRequest{Tenant: tenant, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"quotas"}}}
			must(admin.tenant.UpdateTenant(ctx, change, admin.key))
		}
		waits = append(waits, wait)
		time.Sleep(50 * time.Millisecond)
		return nil
	}
	err := RetryWith(ctx, true, 1000, sleep, func(ctx context.Context) error {
		var trailer metadata.MD
		_, err := hasty.cache.Get(ctx, get, hasty.key, grpc.Trailer(&trailer))
		if err != nil {
			refusals = append(refusals, err)
			pushbacks = append(pushbacks, trailer.Get("grpc-retry-pushback-ms")...)
		}
		return err
	})
	must(0, err)
	fails(refusals[0], codes.ResourceExhausted, "RATE_LIMITED")
	_, told := Explain(refusals[0])
	assert(waits[0] == told && told > 0 && told <= 62*time.Second, waits)
	// gRPC's own retries are told the same; see service_config.json.
	assert(pushbacks[0] == strconv.FormatInt(told.Milliseconds(), 10), pushbacks, told)
}

// restart shows that a call waits for a server that is away, and is carried out once.
func restart(ctx context.Context, admin, acme services) {
	kept := &v1.SetRequest{Key: "kept", Value: []byte("over a restart")}
	must(acme.cache.Set(ctx, kept, acme.key))
	fmt.Println("stop the server")
	told := must(bufio.NewReader(os.Stdin).ReadString('\n'))
	assert(told == "stopped\n", told)
	get := &v1.GetRequest{Key: "kept"}
	_, err := acme.cache.Get(ctx, get, acme.key)
	assert(status.Code(err) == codes.Unavailable, err)

	waits := 0
	patient := func(ctx context.Context, wait time.Duration) error {
		if waits == 0 {
			fmt.Println("start the server")
		}
		waits++
		return sleep(ctx, wait)
	}
	request := &v1.CreateTenantRequest{TenantId: "late", RequestId: requestID()}
	err = RetryWith(ctx, true, 1000, patient, func(ctx context.Context) error {
		_, err := admin.tenant.CreateTenant(ctx, request, admin.key)
		return err
	})
	must(0, err)
	assert(waits > 0, "it was not away")
	var answer *v1.GetResponse
	err = RetryWith(ctx, true, 1000, patient, func(ctx context.Context) (err error) {
		answer, err = acme.cache.Get(ctx, get, acme.key)
		return err
	})
	must(0, err)
	assert(string(answer.Entry.GetValue()) == "over a restart", answer)
}

func main() {
	address, adminKey, serviceConfig := os.Args[1], os.Args[2], os.Args[3]
	conn := must(grpc.Dial(
		address,
		grpc.WithInsecure(), // grpc.WithTransportCredentials(...) where it speaks TLS
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		// gRPC's own retries: of reads, and of UNAVAILABLE alone. They know no RetryInfo.
		grpc.WithDefaultServiceConfig(string(must(os.ReadFile(serviceConfig)))),
		// How long a channel waits at most before it reaches for a server again.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
		}}),
	))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()

	health(ctx, conn)
	admin := with(conn, adminKey)
	acme := with(conn, createTenant(ctx, admin, "acme"))
	keys(ctx, conn, admin, acme)
	entries(ctx, acme)
	batches(ctx, acme)
	badInput(ctx, acme)
	sessions(ctx, acme)
	streams(ctx, acme)
	checkpoints(ctx, admin)
	deadlines(ctx, acme)
	rates(ctx, conn, admin)
	restart(ctx, admin, acme)
	fmt.Println("the tour is complete")
}
