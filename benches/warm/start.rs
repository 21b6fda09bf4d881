//! Reads by Zipf's law around a restart of a replica: how many are answered near,
//! and how many miss and go to the origin, second by second. Once with a warm start,
//! once without, and once on a cache that was never warmed. The servers run in this
//! process, so that their calls of the store can be counted: what is read and asks
//! the store nothing was near.

mod zipf;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use futures::stream;
use riptide_persistence::{
    config::{self, Sources},
    proto::v1::{
        CreateTenantRequest, GetRequest, Quotas, SetEntry, SetRequest, WarmCacheRequest,
        cache_service_client::CacheServiceClient, tenant_service_client::TenantServiceClient,
    },
    server::Server,
    store::Counters,
};
use tokio::{sync::oneshot, time::interval};
use tonic::{
    Request,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use self::zipf::{Load, Random, key};
use crate::{process::ADMIN_KEY, redis::Redis};

/// Connections of the caller.
const CONNECTIONS: usize = 4;

#[derive(clap::Args, Clone)]
pub struct Start {
    /// What the order of reads and the values are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keys; the near cache takes a tenth of their bytes.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    /// How many of the keys, the hottest, WarmCache stores; a read that misses asks
    /// the origin and sets what that says.
    #[arg(long, default_value_t = 40_000)]
    warmed: usize,
    /// Reads a second.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Seconds before the restart.
    #[arg(long, default_value_t = 60)]
    before: usize,
    /// Seconds that are shown.
    #[arg(long, default_value_t = 20)]
    seconds: usize,
}

/// What a second of reads came to.
#[derive(Clone, Copy, Default)]
struct Second {
    near: f64,
    origin: f64,
}

impl Start {
    pub fn run(&self) -> Result<()> {
        let load = Arc::new(Load::new(self));
        let best = load.part_of(self.keys / 10);
        println!(
            "Zipf(1.0) over {} keys of {} B, seed {}, {} reads/s; near cache of a tenth of the bytes",
            self.keys, self.value_bytes, self.seed, self.rate
        );
        println!(
            "best that a tenth of the keys can give: {:.1} % near; aim: >= {:.1} % within 10 s of a warm start, origin <= 15 % at any second after warming\n",
            100.0 * best,
            95.0 * best
        );
        let redis = Redis::start();
        let first = Replica::start(self, &redis, true)?;
        first.tenant()?;
        let begin = Instant::now();
        let stored = first.warm(&load)?;
        println!(
            "WarmCache: {stored} entries in {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        let settling = first.reads(&load, self.before, 0)?;
        first.stop()?;
        let begin = Instant::now();
        let second = Replica::start(self, &redis, true)?;
        println!(
            "warm start: SERVING after {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        let warm = second.reads(&load, self.seconds, 1)?;
        second.stop()?;
        let begin = Instant::now();
        let third = Replica::start(self, &redis, false)?;
        println!(
            "cold start: SERVING after {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        let cold = third.reads(&load, self.seconds, 1)?;
        third.stop()?;
        let redis = Redis::start();
        let fourth = Replica::start(self, &redis, true)?;
        fourth.tenant()?;
        let never = fourth.reads(&load, self.seconds, 1)?;
        fourth.stop()?;

        println!("\nbefore the restart, after WarmCache");
        println!("{:>6} {:>8} {:>8}", "second", "near %", "origin %");
        for (at, second) in settling.iter().enumerate() {
            let Second { near, origin } = second;
            println!("{:>6} {near:>8.2} {origin:>8.2}", at + 1);
        }
        println!("\nafter a start: warm; cold, on the same entries; cold, on an empty cache");
        println!(
            "{:>6} {:>8} {:>8} {:>10} {:>10} {:>11} {:>11}",
            "second", "near %", "origin %", "cold near", "cold orig.", "empty near", "empty orig."
        );
        for (at, ((warm, cold), never)) in warm.iter().zip(&cold).zip(&never).enumerate() {
            println!(
                "{:>6} {:>8.2} {:>8.2} {:>10.2} {:>10.2} {:>11.2} {:>11.2}",
                at + 1,
                warm.near,
                warm.origin,
                cold.near,
                cold.origin,
                never.near,
                never.origin
            );
        }
        let ten = |seconds: &[Second]| {
            let all: Vec<_> = seconds.iter().take(10).map(|second| second.near).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            (mean, all.last().copied().unwrap_or(0.0))
        };
        let part = |near: f64| near / (100.0 * best);
        for (name, seconds) in [("warm", &warm), ("cold", &cold), ("empty", &never)] {
            let (mean, tenth) = ten(seconds);
            println!(
                "{name:>6}: near in the 10th second {tenth:.2} % ({:.3} of the best), mean of the first 10 s {mean:.2} % ({:.3})",
                part(tenth),
                part(mean)
            );
        }
        let after = settling.iter().chain(&warm).chain(&cold);
        let most = after.map(|second| second.origin).fold(0.0, f64::max);
        println!("origin at most {most:.2} % in any second after warming");
        Ok(())
    }
}

/// A server of this process.
struct Replica {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Replica {
    fn start(start: &Start, redis: &Redis, warm: bool) -> Result<Self> {
        let near_bytes = start.keys * start.value_bytes / 10;
        let env = [
            ("PERSISTENCE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("PERSISTENCE_SERVER__ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("PERSISTENCE_AUTH__ADMIN_KEY", ADMIN_KEY.to_owned()),
            ("PERSISTENCE_REDIS__URL", redis.url()),
            ("PERSISTENCE_CACHE__NEAR__MAX_BYTES", near_bytes.to_string()),
            ("PERSISTENCE_CACHE__WARM_START__ENABLED", warm.to_string()),
        ];
        let owned = env.map(|(name, value)| (name.to_owned(), value));
        let sources = Sources {
            file: None,
            env: BTreeMap::from(owned),
            flags: Vec::new(),
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let loaded = config::load(&sources).map_err(|problems| anyhow!("{problems}"))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let server = Server::bind(loaded, sources).await?;
                tell.send((server.local_addr()?, server.counters()))?;
                let stopped = async {
                    // Where nobody can tell it any more it goes, too.
                    let _ = stopped.await;
                };
                Ok(server.run(stopped).await?)
            })
        });
        let (address, counters) = told.recv().context("the server did not start")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let replica = Self {
            address,
            counters,
            stop,
            thread,
            runtime,
        };
        replica.runtime.block_on(async {
            let channel = connect(address)?;
            let mut states = HealthClient::new(channel)
                .watch(HealthCheckRequest::default())
                .await?
                .into_inner();
            while let Some(state) = states.message().await? {
                // SERVING
                if state.status == 1 {
                    return Ok(());
                }
            }
            Err(anyhow!("the server ended"))
        })?;
        Ok(replica)
    }

    fn stop(self) -> Result<()> {
        drop(self.runtime);
        ensure!(self.stop.send(()).is_ok(), "the server is gone");
        self.thread
            .join()
            .map_err(|_| anyhow!("the server panicked"))?
    }

    fn tenant(&self) -> Result<()> {
        let unlimited = Some(-1);
        let request = keyed(CreateTenantRequest {
            tenant_id: "acme".to_owned(),
            quotas: Some(Quotas {
                memory_bytes: unlimited,
                cache_entries: unlimited,
                operations_per_minute: unlimited,
                data_transfer_bytes: unlimited,
                ..Quotas::default()
            }),
            ..CreateTenantRequest::default()
        })?;
        self.runtime.block_on(async {
            TenantServiceClient::new(connect(self.address)?)
                .create_tenant(request)
                .await?;
            Ok(())
        })
    }

    fn warm(&self, load: &Load) -> Result<i64> {
        let message = |first: usize| WarmCacheRequest {
            tenant_id: "acme".to_owned(),
            entries: (first..load.warmed.min(first + 500))
                .map(|rank| SetEntry {
                    key: key(rank),
                    value: load.value(rank),
                    ..SetEntry::default()
                })
                .collect(),
            ..WarmCacheRequest::default()
        };
        let messages: Vec<_> = (0..load.warmed).step_by(500).map(message).collect();
        self.runtime.block_on(async {
            let mut request = Request::new(stream::iter(messages));
            request.metadata_mut().insert("authorization", bearer()?);
            let mut client = CacheServiceClient::new(connect(self.address)?);
            Ok(client.warm_cache(request).await?.into_inner().stored)
        })
    }

    /// Reads for so many seconds, in an order of their own by number: what comes after
    /// a restart is not what came before it.
    fn reads(&self, load: &Arc<Load>, seconds: usize, number: u64) -> Result<Vec<Second>> {
        let (gets, misses) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let failed = Arc::new(AtomicU64::new(0));
        self.runtime.block_on(async {
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|_| Ok(CacheServiceClient::new(connect(self.address)?)))
                .collect::<Result<_>>()?;
            let sending = tokio::spawn({
                let (load, gets, misses) = (load.clone(), gets.clone(), misses.clone());
                let failed = failed.clone();
                async move {
                    let mut random = Random(load.seed.wrapping_add(number << 32));
                    let mut every = interval(Duration::from_millis(5));
                    for turn in 0_u64.. {
                        every.tick().await;
                        let (from, to) = (load.rate * turn / 200, load.rate * (turn + 1) / 200);
                        for n in from..to {
                            let rank = load.draw(&mut random);
                            let client = usize::try_from(n).unwrap_or(0) % clients.len();
                            let Some(client) = clients.get(client).cloned() else {
                                continue;
                            };
                            let (load, gets) = (load.clone(), gets.clone());
                            let (misses, failed) = (misses.clone(), failed.clone());
                            tokio::spawn(async move {
                                match read(client, &load, rank).await {
                                    Ok(hit) => {
                                        gets.fetch_add(1, Ordering::Relaxed);
                                        misses.fetch_add(u64::from(!hit), Ordering::Relaxed);
                                    }
                                    Err(_) => {
                                        failed.fetch_add(1, Ordering::Relaxed);
                                    }
                                }
                            });
                        }
                    }
                }
            });
            let mut shown = Vec::new();
            let counts = || {
                let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
                [load(&gets), load(&misses), self.counters.calls().read]
            };
            let mut every = interval(Duration::from_secs(1));
            every.tick().await;
            let mut before = counts();
            for _ in 0..seconds {
                every.tick().await;
                let now = counts();
                let [gets, misses, reads] =
                    [0, 1, 2].map(|at| now.get(at).zip(before.get(at)).map_or(0, |(n, b)| n - b));
                let part = |count: u64| 100.0 * count as f64 / gets.max(1) as f64;
                shown.push(Second {
                    near: part(gets.saturating_sub(reads)),
                    origin: part(misses),
                });
                before = now;
            }
            sending.abort();
            let failed = failed.load(Ordering::Relaxed);
            ensure!(failed == 0, "{failed} calls failed");
            Ok(shown)
        })
    }
}

/// Reads a key, and sets it where it is missing; whether it was there.
async fn read(mut client: CacheServiceClient<Channel>, load: &Load, rank: usize) -> Result<bool> {
    let request = keyed(GetRequest {
        tenant_id: "acme".to_owned(),
        key: key(rank),
        ..GetRequest::default()
    })?;
    if client.get(request).await?.into_inner().entry.is_some() {
        return Ok(true);
    }
    let request = keyed(SetRequest {
        tenant_id: "acme".to_owned(),
        key: key(rank),
        value: load.value(rank),
        ..SetRequest::default()
    })?;
    client.set(request).await?;
    Ok(false)
}

fn keyed<T>(message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer()?);
    Ok(request)
}

fn bearer() -> Result<AsciiMetadataValue> {
    Ok(format!("Bearer {ADMIN_KEY}").parse()?)
}

/// Connects when it is first used; in a runtime.
fn connect(address: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_lazy())
}
