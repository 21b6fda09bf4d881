//! Many callers burst at one tenant's rates over all replicas: no window that slides
//! over the run ever holds more than the limit, and the limit is used up. Windows
//! are looked at on the callers' clock, which is the store's too: all is on one
//! machine. It does not know how replicas share a rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{
    CheckQuotaMode, CheckQuotaRequest, CustomQuota, GetRequest, Quotas,
};
use tokio::task::JoinSet;

use super::{
    CALLERS, Dice, PRESSURE, REPLICAS, Refusal,
    fleet::{self, Caller, Fleet},
    form, row, show, soak, tenant,
    tide::{Passed, Tide},
};
use crate::{redis::Redis, server::Clients};

const OPERATIONS: &str = "operations_per_minute";
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that is pressed on.
#[derive(Clone)]
struct Rate {
    metric: &'static str,
    limit: u64,
    span: Duration,
    /// The most that one call takes.
    most: u64,
}

/// What one caller was told.
#[derive(Default)]
struct Told {
    passed: Vec<Passed>,
    /// When each refusal was answered, and when to come again.
    refused: Vec<(Duration, Duration)>,
}

/// One call: whether it was let through, or when to come again.
async fn call(clients: &mut Clients, rate: &Rate, amount: u64) -> Result<(), Duration> {
    if rate.metric == OPERATIONS {
        let request = GetRequest {
            key: "hot".into(),
            ..Default::default()
        };
        let Err(status) = clients.cache.get(request).await else {
            return Ok(());
        };
        let refusal = Refusal::of(&status);
        assert_eq!(refusal.reason, "RATE_LIMITED", "{refusal:?}");
        assert_eq!(
            (refusal.metric.as_str(), refusal.limit),
            (OPERATIONS, rate.limit)
        );
        // As the replica knows it: what others were given counts as used.
        assert!(refusal.used <= rate.limit, "{refusal:?}");
        return Err(refusal.retry_after.unwrap());
    }
    let request = CheckQuotaRequest {
        metric: rate.metric.into(),
        amount: amount as i64,
        mode: CheckQuotaMode::Consume.into(),
        ..Default::default()
    };
    let told = clients
        .tenant
        .check_quota(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.limit as u64, rate.limit);
    assert!((0..=told.limit).contains(&told.used), "{told:?}");
    if told.allowed {
        return Ok(());
    }
    let wait = told.retry_after.unwrap();
    Err(Duration::try_from(wait).unwrap())
}

/// Presses until told to stop: at this pace, or as fast as it can.
async fn press(
    number: usize,
    mut caller: Caller,
    rate: Rate,
    begin: Instant,
    pace: Option<Duration>,
    stop: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
) -> Told {
    let (mut clients, _) = caller.clients().await;
    let mut told = Told::default();
    let mut dice = Dice::new(number);
    let mut ticks = pace.map(tokio::time::interval);
    while !stop.load(Relaxed) {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let amount = 1 + dice.roll(rate.most);
        let sent = begin.elapsed();
        let outcome = call(&mut clients, &rate, amount).await;
        let answered = begin.elapsed();
        match outcome {
            Ok(()) => {
                passed.fetch_add(amount, Relaxed);
                told.passed.push(Passed {
                    sent,
                    answered,
                    amount,
                });
            }
            Err(wait) => {
                assert!(
                    wait > Duration::ZERO && wait <= rate.span * 2,
                    "come again in {wait:?}"
                );
                told.refused.push((answered, wait));
            }
        }
    }
    told
}

/// All callers press on a rate for a while, or until `enough` holds.
async fn burst(
    fleet: &Fleet<'_>,
    key: &str,
    rate: &Rate,
    pace: Option<Duration>,
    mut enough: impl FnMut(Duration, u64) -> bool,
) -> (Tide, Vec<Passed>, usize, Duration) {
    let (stop, passed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let caller = fleet.caller(number % REPLICAS, key);
        callers.spawn(press(
            number,
            caller,
            rate.clone(),
            begin,
            pace,
            stop.clone(),
            passed.clone(),
        ));
    }
    while !enough(begin.elapsed(), passed.load(Relaxed)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begin.elapsed();
    stop.store(true, Relaxed);
    let told = callers.join_all().await;
    let refused = told.iter().map(|told| told.refused.len()).sum();
    let passed: Vec<Passed> = told.into_iter().flat_map(|told| told.passed).collect();
    let tide = Tide::new(&passed, rate.span);
    // THE promise: no window ever held more.
    assert!(
        tide.high() <= rate.limit,
        "{} in a window of {}",
        tide.high(),
        rate.metric
    );
    (tide, passed, refused, took)
}

fn pace(rate: &Rate) -> Duration {
    let calls = rate.limit * PRESSURE * 2 / (rate.most + 1);
    rate.span * CALLERS as u32 / calls as u32
}

/// Ten times the limit is asked for over several windows.
async fn sliding(fleet: &Fleet<'_>, rate: Rate, windows: u32, key: &str) -> [String; 7] {
    let length = rate.span * windows;
    let (tide, passed, refused, _) = burst(fleet, key, &rate, Some(pace(&rate)), |took, _| {
        took >= length
    })
    .await;
    let total = tide.total(length);
    let whole = rate.limit * u64::from(windows);
    let part = total as f64 / whole as f64;
    assert!(
        total <= whole,
        "windows that follow each other hold {total}"
    );
    // A busy machine may keep callers from asking, so only where it is quiet.
    if soak() && rate.span >= MINUTE {
        assert!(part >= 0.98, "only {total} of {whole} were let through");
    }
    let mean = tide.mean(length - rate.span) / rate.limit as f64;
    row([
        &rate.metric,
        &format!("{} in {:?}", rate.limit, rate.span),
        &format!("{:.0} s", length.as_secs_f64()),
        &format!(
            "{:.1}",
            (passed.len() + refused) as f64 / passed.len() as f64
        ),
        &format!("{} of {}", tide.high(), rate.limit),
        &format!("{:.1} %", part * 100.0),
        &format!("{:.1} %", mean * 100.0),
    ])
}

/// As fast as callers can: exactly the limit is let through, and then nothing until
/// the window has passed over it.
async fn at_once(fleet: &Fleet<'_>, rate: Rate, key: &str) -> [String; 7] {
    let mut reached = None;
    let (tide, passed, refused, took) = burst(fleet, key, &rate, None, |took, passed| {
        if passed >= rate.limit {
            reached.get_or_insert(took);
        }
        // They go on for a second, so that whoever lets one more through is seen.
        reached.is_some_and(|at| took >= at + Duration::from_secs(1))
            || took >= rate.span - Duration::from_secs(10)
    })
    .await;
    let total: u64 = passed.iter().map(|one| one.amount).sum();
    assert_eq!(total, rate.limit, "in {took:?}");
    row([
        &rate.metric,
        &format!("{} in {:?}", rate.limit, rate.span),
        &format!("{:.1} s", took.as_secs_f64()),
        &format!(
            "{:.1}",
            (passed.len() + refused) as f64 / passed.len() as f64
        ),
        &format!("{} of {}", tide.high(), rate.limit),
        &"-",
        &"-",
    ])
}

/// At rest, whoever is refused and waits as told is let through.
async fn comes_again(fleet: &Fleet<'_>, rate: &Rate, key: &str) {
    let (mut clients, _) = fleet.caller(0, key).clients().await;
    for _ in 0..3 {
        let wait = loop {
            if let Err(wait) = call(&mut clients, rate, 1).await {
                break wait;
            }
        };
        tokio::time::sleep(wait).await;
        let again = call(&mut clients, rate, 1).await;
        assert_eq!(again, Ok(()), "after {wait:?}");
    }
}

fn custom(limit: u64, span: Duration) -> CustomQuota {
    CustomQuota {
        limit: limit as i64,
        window: Some(prost_types::Duration {
            seconds: span.as_secs() as i64,
            nanos: 0,
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_never_passes_a_rate_and_uses_it_up() {
    let redis = Redis::start();
    let folders = fleet::folders(REPLICAS, &redis);
    let mut fleet = Fleet::start(&folders);
    let admin = fleet.admin(0).await;

    let operations = |limit| Rate {
        metric: OPERATIONS,
        limit,
        span: MINUTE,
        most: 1,
    };
    let pages = Rate {
        metric: "pages",
        limit: form(300, 3000),
        span: form(Duration::from_secs(2), Duration::from_secs(20)),
        most: 3,
    };
    let quotas = Quotas {
        custom: [("pages".to_owned(), custom(pages.limit, pages.span))].into(),
        ..Default::default()
    };
    let key = tenant(&admin, "pages", quotas).await;
    let mut rows = vec![sliding(&fleet, pages.clone(), 3, &key).await];
    comes_again(&fleet, &pages, &key).await;

    let limited = |limit: u64| Quotas {
        operations_per_minute: Some(limit as i64),
        ..Default::default()
    };
    let key = tenant(&admin, "at-once", limited(2000)).await;
    rows.push(at_once(&fleet, operations(2000), &key).await);
    if soak() {
        let key = tenant(&admin, "minutes", limited(6000)).await;
        rows.push(sliding(&fleet, operations(6000), 3, &key).await);
    }
    show(
        &format!("rates: {CALLERS} callers, {REPLICAS} replicas"),
        [
            "",
            "limit",
            "for",
            "asked / let through",
            "fullest window",
            "used of the run",
            "of a window, mean",
        ],
        rows,
    );
    fleet.stop();
}
