//! Replicas are killed one after another under load, and at the end the usage and
//! the bill are held against what callers were told: never more than was
//! acknowledged or under way, writes and events exactly, of reads at most a
//! replica's last second lost. It does not know when anything is flushed.

use std::{
    collections::BTreeMap,
    ops::{AddAssign, RangeInclusive},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{
    BatchSetRequest, CheckQuotaMode, CheckQuotaRequest, CustomQuota, DeleteRequest, GetRequest,
    GetTenantBillingRequest, GetTenantUsageRequest, Quotas, RecordUsageRequest, SetEntry,
    SetRequest, Statement, Usage,
};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use super::{
    Dice, REPLICAS, census,
    fleet::{self, Caller, Fleet, Life, is_unknown},
    form, row, show, tenant,
};
use crate::{
    redis::Redis,
    server::{ADMIN_KEY, Clients},
};

const CALLERS: usize = 16;
/// Names of one caller.
const NAMES: u64 = 8;
/// A level that all want more of than there is.
const SEATS: &str = "seats";
const SEATS_LIMIT: u64 = 100;
/// A level that nobody uses up.
const PAGES: &str = "pages";
/// A metric that is only reported.
const REPORTED: &str = "reported";
/// Usage that a new event tells of.
const EVENT_OPERATIONS: u64 = 3;
const EVENT_BYTES: u64 = 1_000_003;
const EVENT_MS: u64 = 7;
const EVENT_REPORTED: u64 = 11;
/// The time to live of what is brief, and the width of its bucket.
const BRIEF_MS: u64 = 900;
const BUCKET_MS: u64 = 50;

/// What was certainly done, and what may have been besides.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    certain: u64,
    open: u64,
}

impl Done {
    fn range(self) -> RangeInclusive<u64> {
        self.certain..=self.certain + self.open
    }
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.certain += other.certain;
        self.open += other.open;
    }
}

/// A name that is set again and again, always with as many bytes.
#[derive(Clone, Copy, Debug)]
struct Held {
    charged_bytes: u64,
    /// When the first Set was sent that may have been done.
    from: Instant,
    /// When the first Set was acknowledged.
    since: Option<Instant>,
}

/// What one caller was told.
#[derive(Default)]
struct Told {
    reads: Done,
    /// When each read was answered, and by which life of a replica.
    read_times: Vec<(Life, Instant)>,
    hits: u64,
    writes: Done,
    /// Bytes of keys and values of writes.
    written_bytes: Done,
    /// Bytes of keys and values of reads, both ways.
    read_bytes: Done,
    events: u64,
    pages: Done,
    seats: Done,
    seats_refused: u64,
    /// Brief entries, by the bytes each counts.
    brief: BTreeMap<u64, Done>,
    held: BTreeMap<String, Held>,
}

impl Told {
    fn merge(&mut self, other: Self) {
        self.reads += other.reads;
        self.read_times.extend(other.read_times);
        self.hits += other.hits;
        self.writes += other.writes;
        self.written_bytes += other.written_bytes;
        self.read_bytes += other.read_bytes;
        self.events += other.events;
        self.pages += other.pages;
        self.seats += other.seats;
        self.seats_refused += other.seats_refused;
        for (charged_bytes, done) in other.brief {
            *self.brief.entry(charged_bytes).or_default() += done;
        }
        self.held.extend(other.held);
    }
}

/// One caller, on one replica's place.
struct Load {
    number: usize,
    caller: Caller,
    /// Others' places, with the admin key: events can be told to any replica.
    reporters: Vec<Caller>,
    dice: Dice,
    /// Bytes that an entry counts beside its key and value.
    overhead: u64,
    told: Told,
    count: u64,
}

/// How a call ended: with an answer by this life, or nobody can know.
type Ended<T> = Option<(Life, T)>;

impl Load {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Told {
        while !stop.load(Relaxed) {
            let count = self.count;
            self.count += 1;
            match count % 10 {
                0 => self.set().await,
                1 => self.batch_set().await,
                2 => self.record().await,
                3 => self.consume(PAGES, 1 + count % 3).await,
                4 if count.is_multiple_of(3) => self.consume(SEATS, 1).await,
                5 => self.brief().await,
                6 => self.delete().await,
                _ => self.get().await,
            }
        }
        self.told
    }

    /// Makes a call; where it breaks, the next one goes to whoever comes after.
    async fn call<T>(
        caller: &mut Caller,
        call: impl AsyncFnOnce(&mut Clients) -> Result<Response<T>, Status>,
    ) -> Ended<T> {
        let (mut clients, life) = caller.clients().await;
        match call(&mut clients).await {
            Ok(answer) => Some((life, answer.into_inner())),
            Err(status) => {
                // On a busy machine a replica may say that it cannot.
                let expected = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
                assert!(is_unknown(&status) || expected, "it answered {status:?}");
                caller.hang_up();
                None
            }
        }
    }

    fn name(&mut self) -> (String, u64) {
        let place = self.dice.roll(NAMES);
        (format!("own-{:02}-{place}", self.number), 100 + 60 * place)
    }

    /// Notes a write: one operation, and bytes.
    fn wrote(&mut self, bytes: u64, acknowledged: bool) {
        let note = |done: &mut Done, amount| match acknowledged {
            true => done.certain += amount,
            false => done.open += amount,
        };
        note(&mut self.told.writes, 1);
        note(&mut self.told.written_bytes, bytes);
    }

    fn holds(&mut self, name: String, value_bytes: u64, sent: Instant, acknowledged: bool) {
        let charged_bytes = self.overhead + name.len() as u64 + value_bytes;
        let held = self.told.held.entry(name).or_insert(Held {
            charged_bytes,
            from: sent,
            since: None,
        });
        if acknowledged {
            held.since.get_or_insert_with(Instant::now);
        }
    }

    async fn set(&mut self) {
        let (name, value_bytes) = self.name();
        let request = SetRequest {
            key: name.clone(),
            value: value(value_bytes).into(),
            ..Default::default()
        };
        let sent = Instant::now();
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.cache.set(request).await
        });
        let acknowledged = ended.await.is_some();
        self.wrote(name.len() as u64 + value_bytes, acknowledged);
        self.holds(name, value_bytes, sent, acknowledged);
    }

    /// One operation, however many entries.
    async fn batch_set(&mut self) {
        let mut items: Vec<(String, u64)> = (0..3).map(|_| self.name()).collect();
        items.sort();
        items.dedup();
        let entries = items.iter().map(|(name, value_bytes)| SetEntry {
            key: name.clone(),
            value: value(*value_bytes).into(),
            ..Default::default()
        });
        let request = BatchSetRequest {
            entries: entries.collect(),
            ..Default::default()
        };
        let sent = Instant::now();
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.cache.batch_set(request).await
        });
        let ended = ended.await;
        if let Some((_, answer)) = &ended {
            let failed = answer.results.iter().find(|one| one.status.is_some());
            assert!(failed.is_none(), "{failed:?}");
        }
        let bytes = items.iter().map(|(name, bytes)| name.len() as u64 + bytes);
        self.wrote(bytes.sum(), ended.is_some());
        for (name, value_bytes) in items {
            self.holds(name, value_bytes, sent, ended.is_some());
        }
    }

    /// Deletes what is not there: an operation all the same.
    async fn delete(&mut self) {
        let request = DeleteRequest {
            key: "absent".into(),
            ..Default::default()
        };
        let bytes = request.key.len() as u64;
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.cache.delete(request).await
        });
        let acknowledged = ended.await.is_some();
        self.wrote(bytes, acknowledged);
    }

    /// Sets what expires by itself.
    async fn brief(&mut self) {
        let name = format!("brief-{:02}-{:06}", self.number, self.count);
        let value_bytes = 100 * self.dice.roll(5);
        let bytes = name.len() as u64 + value_bytes;
        let request = SetRequest {
            key: name,
            value: value(value_bytes).into(),
            ttl: Some(prost_types::Duration {
                seconds: 0,
                nanos: BRIEF_MS as i32 * 1_000_000,
            }),
            ..Default::default()
        };
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.cache.set(request).await
        });
        let acknowledged = ended.await.is_some();
        self.wrote(bytes, acknowledged);
        let brief = self.told.brief.entry(self.overhead + bytes).or_default();
        match acknowledged {
            true => brief.certain += 1,
            false => brief.open += 1,
        }
    }

    async fn get(&mut self) {
        let (name, value_bytes) = self.name();
        let request = GetRequest {
            key: name.clone(),
            ..Default::default()
        };
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.cache.get(request).await
        });
        let (reads, bytes) = (&mut self.told.reads, &mut self.told.read_bytes);
        let Some((life, answer)) = ended.await else {
            reads.open += 1;
            bytes.open += 2 * name.len() as u64 + value_bytes;
            return;
        };
        reads.certain += 1;
        self.told.read_times.push((life, Instant::now()));
        bytes.certain += name.len() as u64;
        if let Some(entry) = answer.entry {
            self.told.hits += 1;
            bytes.certain += (entry.key.len() + entry.value.len()) as u64;
        }
    }

    /// Reports an event to one replica after another until one has answered, and then
    /// once more: it counts once.
    async fn record(&mut self) {
        let event = RecordUsageRequest {
            tenant_id: "acme".into(),
            event_id: format!("event-{}-{}", self.number, self.count),
            operations: EVENT_OPERATIONS as i64,
            data_transfer_bytes: EVENT_BYTES as i64,
            compute_ms: EVENT_MS as i64,
            custom: [(REPORTED.to_owned(), EVENT_REPORTED as i64)].into(),
            ..Default::default()
        };
        let mut recorded = None;
        let mut tries = 0;
        while recorded.is_none() {
            let at = (self.number + tries) % REPLICAS;
            let request = event.clone();
            let ended = Self::call(&mut self.reporters[at], async |clients| {
                clients.tenant.record_usage(request).await
            });
            recorded = ended.await.map(|(_, answer)| answer.recorded);
            tries += 1;
        }
        // Only an attempt that broke can have recorded it unseen.
        assert!(
            recorded == Some(true) || tries > 1,
            "a new event is a duplicate"
        );
        self.told.events += 1;
        if self.dice.roll(4) == 0 {
            let at = (self.number + 1) % REPLICAS;
            let again = Self::call(&mut self.reporters[at], async |clients| {
                clients.tenant.record_usage(event).await
            });
            if let Some((_, answer)) = again.await {
                assert!(!answer.recorded, "an event was recorded twice");
            }
        }
    }

    async fn consume(&mut self, metric: &str, amount: u64) {
        let request = CheckQuotaRequest {
            metric: metric.into(),
            amount: amount as i64,
            mode: CheckQuotaMode::Consume.into(),
            ..Default::default()
        };
        let ended = Self::call(&mut self.caller, async |clients| {
            clients.tenant.check_quota(request).await
        });
        let ended = ended.await;
        let done = match metric {
            SEATS => &mut self.told.seats,
            _ => &mut self.told.pages,
        };
        match ended {
            Some((_, answer)) if answer.allowed => done.certain += amount,
            Some((_, answer)) => {
                assert_eq!(metric, SEATS, "{answer:?}");
                assert_eq!(answer.used as u64, SEATS_LIMIT, "refused below the limit");
                self.told.seats_refused += 1;
            }
            None => done.open += amount,
        }
    }
}

/// Bytes that no compressor sees: they are few.
fn value(bytes: u64) -> Vec<u8> {
    vec![b'v'; bytes as usize]
}

async fn reported(fleet: &Fleet<'_>, replica: usize) -> (Usage, Statement) {
    let admin = fleet.admin(replica).await;
    let request = GetTenantUsageRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let usage = admin.tenant.clone().get_tenant_usage(request).await;
    let request = GetTenantBillingRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let bill = admin.tenant.clone().get_tenant_billing(request).await;
    (
        usage.unwrap().into_inner().usage.unwrap(),
        bill.unwrap().into_inner().statement.unwrap(),
    )
}

/// What the bill says of a metric; 0 where it has no line.
fn billed(bill: &Statement, metric: &str) -> u64 {
    let lines = bill.lines.iter().filter(|line| line.metric == metric);
    lines.map(|line| line.quantity as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bill_never_exceeds_what_was_acknowledged_or_under_way() {
    let (kills, every) = form(
        (6, Duration::from_millis(1500)),
        (60, Duration::from_secs(2)),
    );
    let redis = Redis::start();
    let folders = fleet::folders(REPLICAS, &redis);
    let mut fleet = Fleet::start(&folders);
    let level = |limit: u64| CustomQuota {
        limit: limit as i64,
        window: None,
    };
    let quotas = Quotas {
        memory_bytes: Some(1 << 30),
        cache_entries: Some(1 << 30),
        operations_per_minute: Some(1 << 30),
        data_transfer_bytes: Some(1 << 50),
        custom: [
            (SEATS.to_owned(), level(SEATS_LIMIT)),
            (PAGES.to_owned(), level(1 << 40)),
            (REPORTED.to_owned(), level(1 << 40)),
        ]
        .into(),
        ..Default::default()
    };
    let key = tenant(&fleet.admin(0).await, "acme", quotas).await;

    // What an entry counts beside its key and value, by what Redis holds of one.
    let mut all = Told::default();
    let overhead = {
        let (mut clients, _) = fleet.caller(0, &key).clients().await;
        let request = SetRequest {
            key: "first".into(),
            ..Default::default()
        };
        let from = Instant::now();
        clients.cache.set(request).await.unwrap();
        let since = Some(Instant::now());
        let charged_bytes = census::count(&redis, &census::space(&redis, &[])).bytes;
        let held = Held {
            charged_bytes,
            from,
            since,
        };
        all.held.insert("first".into(), held);
        all.writes.certain += 1;
        all.written_bytes.certain += 5;
        charged_bytes - 5
    };

    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let load = Load {
            number,
            caller: fleet.caller(number % REPLICAS, &key),
            reporters: (0..REPLICAS)
                .map(|replica| fleet.caller(replica, ADMIN_KEY))
                .collect(),
            dice: Dice::new(number),
            overhead,
            told: Told::default(),
            count: number as u64,
        };
        callers.spawn(load.run(stop.clone()));
    }
    let mut killed = Vec::new();
    for kill in 0..kills {
        let due = Instant::now() + every;
        tokio::time::sleep_until(due.into()).await;
        let replica = kill % REPLICAS;
        killed.push(fleet.kill(replica));
        fleet.revive(replica);
    }
    tokio::time::sleep(every / 2).await;
    stop.store(true, Relaxed);
    for told in callers.join_all().await {
        all.merge(told);
    }
    // What is brief is gone, and all that was counted is flushed.
    tokio::time::sleep(Duration::from_millis(BRIEF_MS + 2 * BUCKET_MS)).await;
    fleet.stop();
    fleet.revive(0);
    let before = Instant::now();
    let (usage, bill) = reported(&fleet, 0).await;
    let after = Instant::now();

    let reads = (usage.hits + usage.misses) as u64;
    let events = all.events * EVENT_OPERATIONS;
    let writes = usage.operations as u64 - reads - events;
    let transferred = usage.data_transfer_bytes as u64 - all.events * EVENT_BYTES;
    // Reads that a killed replica had answered in its last second, and a half of it:
    // the flush has its way to go, too.
    let at_risk = |slack: Duration| {
        let last = |(life, moment): &(Life, Instant)| {
            let since = killed.iter().find(|(killed, _)| killed == life);
            since.is_some_and(|(_, at)| *moment + slack >= *at)
        };
        all.read_times.iter().filter(|one| last(one)).count() as u64
    };
    let lost = all.reads.certain.saturating_sub(reads);
    let (low, high) = byte_seconds(&all, before, after);
    show(
        &format!("{kills} kills, one every {every:?}: {REPLICAS} replicas, {CALLERS} callers"),
        ["", "acknowledged", "unknown", "counted", "billed"],
        vec![
            row([
                &"operations",
                &(all.reads.certain + all.writes.certain + events),
                &(all.reads.open + all.writes.open),
                &usage.operations,
                &billed(&bill, "operations"),
            ]),
            row([
                &"  writes",
                &all.writes.certain,
                &all.writes.open,
                &writes,
                &"",
            ]),
            row([&"  reads", &all.reads.certain, &all.reads.open, &reads, &""]),
            row([&"  reads lost", &"", &"", &lost, &""]),
            row([
                &"  reads in the last second of the killed",
                &at_risk(Duration::from_secs(1)),
                &"",
                &"",
                &"",
            ]),
            row([&"  reported operations", &events, &0, &"", &""]),
            row([
                &"bytes in and out, not reported",
                &(all.written_bytes.certain + all.read_bytes.certain),
                &(all.written_bytes.open + all.read_bytes.open),
                &transferred,
                &"",
            ]),
            row([
                &"reported compute_ms",
                &(all.events * EVENT_MS),
                &0,
                &usage.compute_ms,
                &billed(&bill, "compute_ms"),
            ]),
            row([
                &"level pages",
                &all.pages.certain,
                &all.pages.open,
                &usage.custom[PAGES],
                &billed(&bill, PAGES),
            ]),
            row([
                &format!(
                    "level seats, limit {SEATS_LIMIT}, {} refused",
                    all.seats_refused
                ),
                &all.seats.certain,
                &all.seats.open,
                &usage.custom[SEATS],
                &billed(&bill, SEATS),
            ]),
            row([
                &"memory_byte_seconds",
                &low,
                &(high - low),
                &usage.memory_byte_seconds,
                &billed(&bill, "memory_byte_seconds"),
            ]),
        ],
    );

    // The bill is the usage, to the unit.
    assert_eq!(billed(&bill, "operations"), usage.operations as u64);
    assert_eq!(
        billed(&bill, "data_transfer_bytes"),
        usage.data_transfer_bytes as u64
    );
    assert_eq!(billed(&bill, "compute_ms"), usage.compute_ms as u64);
    // Never over; writes exactly; of reads at most what was not flushed.
    let in_range = |what: &str, done: Done, counted: u64| {
        assert!(
            done.range().contains(&counted),
            "{what}: {done:?}, counted {counted}"
        );
    };
    in_range("writes", all.writes, writes);
    assert!(reads <= all.reads.certain + all.reads.open, "{reads} reads");
    let slack = form(Duration::from_secs(4), Duration::from_millis(1300));
    let at_risk = at_risk(slack);
    assert!(lost <= at_risk, "{lost} reads lost, {at_risk} were at risk");
    assert!(usage.hits as u64 <= all.hits + all.reads.open);
    assert!(
        transferred
            <= all.written_bytes.certain
                + all.written_bytes.open
                + all.read_bytes.certain
                + all.read_bytes.open
    );
    assert!(
        transferred >= all.written_bytes.certain,
        "bytes of writes were lost"
    );
    // Refusals are counted as reads are.
    let refused = all.seats_refused + all.seats.open;
    assert!(usage.throttled as u64 <= refused, "{refused} refused");
    // Events exactly, whoever was killed when they were told.
    assert_eq!(usage.compute_ms as u64, all.events * EVENT_MS);
    assert_eq!(usage.custom[REPORTED] as u64, all.events * EVENT_REPORTED);
    // Levels: none below what was granted, none beyond what may have been.
    in_range(PAGES, all.pages, usage.custom[PAGES] as u64);
    in_range(SEATS, all.seats, usage.custom[SEATS] as u64);
    assert!(all.seats_refused > 0 && usage.custom[SEATS] as u64 == SEATS_LIMIT);
    assert!(
        (low..=high).contains(&(usage.memory_byte_seconds as u64)),
        "{low} <= {} <= {high}",
        usage.memory_byte_seconds
    );
    assert!(
        all.reads.open + all.writes.open > 0,
        "no kill met a call: it proves nothing"
    );
    fleet.stop();
}

/// What the integral of bytes over time must come to: at least, at most.
fn byte_seconds(all: &Told, before: Instant, after: Instant) -> (u64, u64) {
    let (mut low, mut high) = (0, 0);
    for held in all.held.values() {
        let bytes = u128::from(held.charged_bytes);
        high += bytes * (after - held.from).as_millis().saturating_add(2);
        if let Some(since) = held.since {
            low += bytes * (before - since).as_millis().saturating_sub(2);
        }
    }
    for (bytes, brief) in &all.brief {
        let (bytes, most) = (u128::from(*bytes), brief.certain + brief.open);
        low += bytes * u128::from(brief.certain * BRIEF_MS);
        high += bytes * u128::from(most * (BRIEF_MS + BUCKET_MS));
    }
    ((low / 1000) as u64, high.div_ceil(1000) as u64)
}
