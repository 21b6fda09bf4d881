//! The stampede: very many callers miss the same key at the same time, at three
//! replicas on one Redis, all of them real processes. Of all of them one refills it,
//! and the others wait, or make do with what was. The run is short among all tests;
//! `make stampede SEED=7` makes it long, with that seed. It does not know how a lease
//! is kept, only what callers were told and what Redis was asked.

#![allow(clippy::print_stdout)] // the table is read by people

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use riptide_persistence::proto::v1::{
    GetOrLeaseRequest, InvalidateCacheRequest, Quotas, SetRequest, invalidate_cache_request::Target,
};
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    money::{
        Dice,
        fleet::{self, Fleet},
        form, row, show, tenant,
    },
    redis::Redis,
    server::Clients,
};

const REPLICAS: usize = 3;
/// Connections to each replica.
const CONNECTIONS: usize = 12;
/// How long leases hold.
const LEASE: Duration = Duration::from_secs(60);
/// Within which all callers come.
const CROWD: Duration = Duration::from_millis(50);

/// The seed of the run.
fn seed() -> usize {
    let told = std::env::var("RIPTIDE_SEED").ok();
    let told = told.filter(|text| !text.is_empty());
    told.map_or(1, |text| text.parse().expect("RIPTIDE_SEED is a number"))
}

/// How a stampede goes.
#[derive(Clone, Copy)]
struct Scene {
    key: &'static str,
    /// What the origin has, and how long it takes to tell.
    value: &'static str,
    origin: Duration,
    stale_ok: bool,
    /// How many who get a lease never come back, and how long theirs hold.
    lost: usize,
    lease: Duration,
}

/// What a caller was told until he had the value.
#[derive(Default)]
struct Told {
    /// When each lease was asked for and granted to him, and whether he used it.
    leases: Vec<(Instant, Instant)>,
    lost: bool,
    asked: usize,
    waits: usize,
    stale: usize,
    took: Duration,
    value: Vec<u8>,
}

/// How many leases were lost on purpose so far.
type Lost = Arc<std::sync::atomic::AtomicUsize>;

async fn call(mut clients: Clients, scene: Scene, begin: Instant, lost: Lost) -> Told {
    use std::sync::atomic::Ordering::SeqCst;
    let mut told = Told::default();
    loop {
        let asked = Instant::now();
        told.asked += 1;
        // Whoever refills has time, on a busy machine too.
        let lease = if lost.load(SeqCst) < scene.lost {
            scene.lease
        } else {
            LEASE
        };
        let request = GetOrLeaseRequest {
            key: scene.key.into(),
            lease_duration: lease.try_into().ok(),
            stale_ok: scene.stale_ok,
            ..Default::default()
        };
        let answer = clients.cache.get_or_lease(request).await;
        let answer = answer.expect("every call is answered").into_inner();
        if !answer.lease_token.is_empty() {
            assert!(answer.entry.is_none() && answer.retry_after.is_none());
            told.leases.push((asked, Instant::now()));
            if lost.fetch_add(1, SeqCst) < scene.lost {
                told.lost = true;
                return told;
            }
            sleep(scene.origin).await;
            let request = SetRequest {
                key: scene.key.into(),
                value: scene.value.into(),
                lease_token: answer.lease_token,
                ..Default::default()
            };
            clients.cache.set(request).await.expect("its lease holds");
            told.value = scene.value.into();
            break;
        }
        if let Some(entry) = answer.entry {
            assert_eq!(answer.stale, answer.retry_after.is_some());
            assert!(scene.stale_ok || !answer.stale);
            told.stale += usize::from(answer.stale);
            told.value = entry.value.to_vec();
            break;
        }
        told.waits += 1;
        let again = answer.retry_after.expect("an entry, a lease or a wait");
        sleep(Duration::try_from(again).unwrap()).await;
    }
    told.took = begin.elapsed();
    told
}

/// Scripts and reads that Redis was asked so far.
fn asked(redis: &Redis) -> (u64, u64) {
    let commands = redis.commands();
    let calls = |command| commands.get(command).copied().unwrap_or(0);
    (calls("evalsha"), calls("mget"))
}

struct Stampede<'a> {
    redis: &'a Redis,
    /// Of each replica.
    clients: Vec<Vec<Clients>>,
    callers: usize,
}

impl Stampede<'_> {
    /// Every caller calls, at a replica and a moment of the dice's.
    async fn run(&self, scene: Scene, dice: &mut Dice) -> Vec<Told> {
        let lost = Lost::default();
        let ready = Arc::new(Barrier::new(self.callers + 1));
        let mut calls = JoinSet::new();
        for _ in 0..self.callers {
            let replica = &self.clients[dice.roll(REPLICAS as u64) as usize];
            let clients = replica[dice.roll(CONNECTIONS as u64) as usize].clone();
            let after = Duration::from_micros(dice.roll(CROWD.as_micros() as u64));
            let (lost, ready) = (lost.clone(), ready.clone());
            calls.spawn(async move {
                ready.wait().await;
                let begin = Instant::now() + after;
                sleep_until(begin.into()).await;
                call(clients, scene, begin, lost).await
            });
        }
        ready.wait().await;
        calls.join_all().await
    }

    /// Runs a scene and says how it went.
    async fn show(&self, title: &str, scene: Scene, dice: &mut Dice) -> (Vec<Told>, [String; 9]) {
        let before = asked(self.redis);
        let told = self.run(scene, dice).await;
        let after = asked(self.redis);
        let mut took: Vec<_> = told
            .iter()
            .filter(|told| !told.lost)
            .map(|told| told.took)
            .collect();
        took.sort();
        let ms = |took: Duration| format!("{:.0} ms", took.as_secs_f64() * 1e3);
        let sum = |count: fn(&Told) -> usize| told.iter().map(count).sum::<usize>();
        let row = row([
            &title,
            &told.len(),
            &sum(|told| told.leases.len()),
            &sum(|told| told.asked),
            &sum(|told| told.stale),
            &(after.1 - before.1),
            &(after.0 - before.0),
            &ms(took[took.len() / 2]),
            &ms(*took.last().unwrap()),
        ]);
        (told, row)
    }

    async fn refill(&self, key: &str, value: &str) {
        let mut cache = self.clients[0][0].cache.clone();
        let request = GetOrLeaseRequest {
            key: key.into(),
            ..Default::default()
        };
        let leased = cache.get_or_lease(request).await.unwrap().into_inner();
        let request = SetRequest {
            key: key.into(),
            value: value.to_owned().into(),
            lease_token: leased.lease_token,
            ..Default::default()
        };
        cache.set(request).await.unwrap();
    }
}

fn leases(told: &[Told]) -> Vec<(Instant, Instant)> {
    let mut leases: Vec<_> = told.iter().flat_map(|told| told.leases.clone()).collect();
    leases.sort();
    leases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_miss_a_key_one_refills_it() {
    let callers = form(1_000, 10_000);
    let mut dice = Dice::new(seed());
    let redis = Redis::start();
    let folders = fleet::folders(REPLICAS, &redis);
    let mut fleet = Fleet::start(&folders);
    let admin = fleet.admin(0).await;
    let unlimited = Quotas {
        operations_per_minute: Some(-1),
        ..Default::default()
    };
    let key = tenant(&admin, "stampede", unlimited).await;
    let connect = |replica: usize| {
        let lines = (0..CONNECTIONS).map(|_| fleet.caller(replica, &key));
        join_all(lines.map(async |mut line| line.clients().await.0))
    };
    let stampede = Stampede {
        clients: join_all((0..REPLICAS).map(connect)).await,
        redis: &redis,
        callers,
    };
    let mut rows = Vec::new();

    let scene = Scene {
        key: "missing",
        value: "new",
        origin: Duration::from_millis(300 + dice.roll(400)),
        stale_ok: false,
        lost: 0,
        lease: LEASE,
    };
    let (told, row) = stampede.show("a missing key", scene, &mut dice).await;
    rows.push(row);
    assert_eq!(leases(&told).len(), 1, "one refills");
    assert!(told.iter().all(|told| told.value == b"new"));
    let asked_once = |told: &Told| told.waits + 1 == told.asked;
    assert!(told.iter().all(asked_once), "all others waited");

    let (told, row) = stampede.show("a key that is there", scene, &mut dice).await;
    rows.push(row);
    assert_eq!(leases(&told).len(), 0);
    assert!(
        told.iter()
            .all(|told| told.asked == 1 && told.value == b"new")
    );

    // Of a namespace that was invalidated, and is not reclaimed everywhere yet.
    stampede.refill("stale", "old").await;
    let flush = InvalidateCacheRequest {
        target: Some(Target::WholeNamespace(true)),
        ..Default::default()
    };
    let mut cache = stampede.clients[0][0].cache.clone();
    cache.invalidate_cache(flush).await.unwrap();
    let scene = Scene {
        key: "stale",
        stale_ok: true,
        ..scene
    };
    let (told, row) = stampede
        .show("an invalidated key, stale_ok", scene, &mut dice)
        .await;
    rows.push(row);
    assert_eq!(leases(&told).len(), 1, "one refills");
    for told in &told {
        let old = told.stale == 1;
        assert_eq!(&told.value[..], if old { &b"old"[..] } else { b"new" });
    }

    let scene = Scene {
        key: "lost",
        lease: Duration::from_millis(1000 + dice.roll(1000)),
        origin: Duration::from_millis(100),
        stale_ok: false,
        lost: 1,
        ..scene
    };
    let (told, row) = stampede
        .show("whoever has the lease never returns", scene, &mut dice)
        .await;
    rows.push(row);
    let [(asked, _), (_, granted)] = leases(&told)[..] else {
        panic!("{} leases", leases(&told).len())
    };
    let between = granted - asked;
    // By another clock than the store's, which may tick a little slower.
    assert!(
        between + Duration::from_millis(20) >= scene.lease,
        "granted again after {between:?} of {:?}",
        scene.lease
    );
    let told: Vec<_> = told.iter().filter(|told| !told.lost).collect();
    assert_eq!(told.len(), callers - 1);
    assert!(told.iter().all(|told| told.value == b"new"));

    show(
        &format!(
            "stampede: {callers} callers within {CROWD:?}, {REPLICAS} replicas, seed {}",
            seed()
        ),
        [
            "", "callers", "leases", "calls", "stale", "reads", "scripts", "median", "last",
        ],
        rows,
    );
    println!("reads and scripts of Redis, with those of health, metering and the feed of changes");
    fleet.stop();
}
