//! The figures as a table for people and as JSON. It does not know how they were
//! come by.

pub mod form;

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use serde::Serialize;

use self::form::{cores, median, table};
use crate::{
    access::Access, checkpoint::Checkpoints, idle::Idle, invalidate::Invalidation, load::Tally,
    noisy::Noisy, reload::Reloads, scenario::BATCH, slow, tls::Tls,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The server on Redis. What it reads often, it answers from memory.
    Redis,
    /// The same with nothing kept near, so that each call asks Redis.
    RedisFar,
    /// The server on its embedded store.
    Embedded,
    /// No work, on tonic's own server and tokio's default runtime.
    DefaultTwin,
    /// No work, on a runtime per core.
    PerCoreTwin,
}

impl Subject {
    /// Whether it does the work.
    pub fn is_real(self) -> bool {
        matches!(self, Self::Redis | Self::RedisFar | Self::Embedded)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RedisFar => "redis, near off",
            Self::Embedded => "embedded",
            Self::DefaultTwin => "twin: default",
            Self::PerCoreTwin => "twin: per core",
        }
    }
}

/// One measurement.
#[derive(Serialize)]
pub struct Sample {
    /// Calls in all.
    pub calls: u64,
    /// Calls a second.
    pub per_second: f64,
    /// The median.
    pub p50_ms: f64,
    /// What one in a hundred is beyond.
    pub p99_ms: f64,
    /// Per million calls: of the load generator, of the server, of Redis.
    cpu_seconds_per_million: Vec<f64>,
}

impl Sample {
    /// In the units of the report.
    pub fn of(tally: &Tally) -> Self {
        let ms = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            calls: tally.calls,
            per_second: tally.rate(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            cpu_seconds_per_million: tally
                .cpu_seconds
                .iter()
                .map(|seconds| seconds * 1e6 / tally.calls as f64)
                .collect(),
        }
    }

    /// CPU seconds per million calls of the load generator (0), the server (1), or
    /// Redis (2); 0 where it has no part.
    pub fn cpu(&self, part: usize) -> f64 {
        self.cpu_seconds_per_million
            .get(part)
            .copied()
            .unwrap_or_default()
    }
}

impl Invalidation {
    fn rows(&self, row: &mut impl FnMut(&str, Subject, String, &str)) {
        for (named, sample) in &self.calls {
            let (what, aim) = (
                format!("invalidate {named} of {}", self.entries),
                "p99 <= 5 ms",
            );
            let told = format!("p50 {:.2} ms, p99 {:.2} ms", sample.p50_ms, sample.p99_ms);
            row(&what, self.subject, told, aim);
        }
        let slow = self
            .slow_commands
            .as_ref()
            .map_or_else(String::new, |slow| {
                format!(", commands over 2 ms: {}", slow::told(slow.iter()))
            });
        let told = format!("{:.1} s{slow}", self.swept_seconds);
        row(
            &format!("sweep of {}", self.entries),
            self.subject,
            told,
            "0 over 2 ms",
        );
    }
}

/// Everything that was measured.
#[derive(Default, Serialize)]
pub struct Report {
    /// How often.
    pub rounds: usize,
    /// Callers in the closed loops.
    pub callers: usize,
    /// Closed loops, a sample a round.
    pub peaks: BTreeMap<&'static str, BTreeMap<Subject, Vec<Sample>>>,
    /// Get over 100 tenants by 50 callers, in an open loop.
    pub many_tenants: BTreeMap<Subject, Sample>,
    /// A tenant beside a noisy one.
    pub noisy: BTreeMap<Subject, Noisy>,
    /// The server's own work beside tenants that are idle.
    pub idle: Vec<Idle>,
    /// Invalidations, one after another.
    pub invalidations: Vec<Invalidation>,
    /// A load while the configuration is reloaded.
    pub reloads: Option<Reloads>,
    /// A load while a checkpoint is taken.
    pub checkpoints: Option<Checkpoints>,
    /// What TLS costs.
    pub tls: Option<Tls>,
    pub access: Option<Access>,
    /// CreateTenant, one after another.
    pub create_tenant: BTreeMap<Subject, Sample>,
    /// From start to SERVING, in milliseconds.
    pub start_ms: BTreeMap<Subject, Vec<f64>>,
    /// Resident memory after the start, in MiB.
    pub idle_mib: BTreeMap<Subject, Vec<f64>>,
}

/// The closed loops over entries of 1 KiB, and those of encrypted tenants.
pub const GET: &str = "Get 1 KiB";
/// See [`GET`].
pub const SEALED_GET: &str = "Get 1 KiB, encrypted";
/// See [`GET`].
pub const SET: &str = "Set 1 KiB";
/// See [`GET`].
pub const SEALED_SET: &str = "Set 1 KiB, encrypted";

/// The closed loops over CheckQuota.
pub const CUSTOM: &str = "CheckQuota CONSUME, custom";
/// See [`CUSTOM`].
pub const OPERATIONS: &str = "CheckQuota CONSUME, operations";

/// What a ratio should be at least: scenario, subject, twin, aim.
const AIMS: [(&str, Subject, Subject, f64); 10] = [
    (GET, Subject::Redis, Subject::DefaultTwin, 1.30),
    (GET, Subject::Redis, Subject::PerCoreTwin, 0.85),
    (GET, Subject::Embedded, Subject::DefaultTwin, 1.30),
    (GET, Subject::Embedded, Subject::PerCoreTwin, 0.85),
    (GET, Subject::RedisFar, Subject::DefaultTwin, 1.00),
    (SET, Subject::Redis, Subject::DefaultTwin, 0.45),
    (CUSTOM, Subject::Redis, Subject::DefaultTwin, 0.80),
    (CUSTOM, Subject::Embedded, Subject::DefaultTwin, 0.80),
    (OPERATIONS, Subject::Redis, Subject::DefaultTwin, 0.80),
    (OPERATIONS, Subject::Embedded, Subject::DefaultTwin, 0.80),
];

impl Report {
    /// The median over the rounds.
    pub fn median_rate(&self, peak: &str, subject: Subject) -> f64 {
        median(
            self.samples(peak, subject)
                .iter()
                .map(|sample| sample.per_second),
        )
    }

    /// The median over the rounds of the ratio of two rates in the same round.
    fn ratio(&self, peak: &str, subject: Subject, twin: Subject) -> f64 {
        let pairs = self.pairs((peak, subject), (peak, twin)).into_iter();
        median(pairs.map(|(subject, twin)| subject.per_second / twin.per_second))
    }

    /// The samples of two measurements that were taken in the same round.
    fn pairs(&self, one: (&str, Subject), other: (&str, Subject)) -> Vec<(&Sample, &Sample)> {
        let (one, other) = (self.samples(one.0, one.1), self.samples(other.0, other.1));
        one.iter().zip(other).collect()
    }

    fn samples(&self, peak: &str, subject: Subject) -> &[Sample] {
        self.peaks
            .get(peak)
            .and_then(|subjects| subjects.get(&subject))
            .map_or(&[], Vec::as_slice)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut peaks = table(&[
            "closed loop",
            "",
            "calls/s",
            "/ default",
            "/ per core",
            "p50 ms",
            "p99 ms",
            "client CPU s/M",
            "CPU s/M",
            "Redis CPU s/M",
        ]);
        for (peak, subjects) in &self.peaks {
            for (subject, samples) in subjects {
                let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
                peaks.add_row([
                    (*peak).to_owned(),
                    subject.name().to_owned(),
                    format!("{:.0}", of(|sample| sample.per_second)),
                    self.ratio_with_aim(peak, *subject, Subject::DefaultTwin),
                    self.ratio_with_aim(peak, *subject, Subject::PerCoreTwin),
                    format!("{:.2}", of(|sample| sample.p50_ms)),
                    format!("{:.2}", of(|sample| sample.p99_ms)),
                    format!("{:.2}", of(|sample| sample.cpu(0))),
                    format!("{:.2}", of(|sample| sample.cpu(1))),
                    format!("{:.2}", of(|sample| sample.cpu(2))),
                ]);
            }
        }

        let mut others = table(&["", "", "measured", "aim"]);
        let mut row = |what: &str, subject: Subject, measured: String, aim: &str| {
            others.add_row([what, subject.name(), &measured, aim]);
        };
        for (subject, noisy) in &self.noisy {
            row(
                "p99 of a tenant beside a noisy one",
                *subject,
                noisy.told(),
                "<= x1.20",
            );
        }
        for idle in &self.idle {
            row(
                "100 tenants call, others idle",
                Subject::Redis,
                format!(
                    "{} idle: {:.1} scripts/s, {:.3} CPU s/s",
                    idle.idle,
                    idle.scripts_per_second(),
                    idle.server_cpu
                ),
                "equal",
            );
        }
        for invalidation in &self.invalidations {
            invalidation.rows(&mut row);
        }
        for subject in [Subject::Redis, Subject::Embedded] {
            let pairs = self.pairs((GET, subject), (GET, Subject::PerCoreTwin));
            if !pairs.is_empty() {
                let ratios = pairs.iter().map(|(near, twin)| near.p99_ms / twin.p99_ms);
                let ratio = median(ratios);
                let measured = format!("x{ratio:.2} of the per-core twin's");
                row("p99 of near hits", subject, measured, "<= x1.25");
            }
        }
        for (what, plain, sealed) in [
            ("rate of encrypted Gets", GET, SEALED_GET),
            ("rate of encrypted Sets", SET, SEALED_SET),
        ] {
            for subject in [Subject::Redis, Subject::RedisFar, Subject::Embedded] {
                let pairs = self.pairs((sealed, subject), (plain, subject));
                if !pairs.is_empty() {
                    let ratios = pairs.iter().map(|(a, b)| a.per_second / b.per_second);
                    let measured = format!("x{:.2} of plain ones", median(ratios));
                    row(what, subject, measured, ">= x0.95");
                }
            }
        }
        for subject in [Subject::Redis, Subject::Embedded] {
            if self.samples("BatchGet 100 x 100 B", subject).is_empty() {
                continue;
            }
            let keys = self.median_rate("BatchGet 100 x 100 B", subject) * BATCH as f64 / 1e3;
            row(
                "batch of 100 x 100 B read",
                subject,
                format!("{keys:.0} k keys/s"),
                ">= 400 k keys/s",
            );
        }
        for (subject, sample) in &self.many_tenants {
            let measured = format!(
                "p50 {:.2} ms, p99 {:.2} ms at {:.0}/s",
                sample.p50_ms, sample.p99_ms, sample.per_second
            );
            row(
                "Get, 100 tenants, 50 callers, open loop",
                *subject,
                measured,
                "p99 < 5 ms",
            );
        }
        for (subject, sample) in &self.create_tenant {
            row(
                "create tenant",
                *subject,
                format!("p50 {:.2} ms, p99 {:.2} ms", sample.p50_ms, sample.p99_ms),
                "< 100 ms",
            );
        }
        for (subject, values) in &self.start_ms {
            row(
                "start to SERVING",
                *subject,
                format!("{:.0} ms", median(values.iter().copied())),
                "< 300 ms",
            );
        }
        for (subject, values) in &self.idle_mib {
            row(
                "idle memory",
                *subject,
                format!("{:.1} MiB", median(values.iter().copied())),
                "< 40 MiB",
            );
        }

        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} cores, load generator included; {} rounds, {} callers on 8 connections; medians, aims in brackets",
            cores(),
            self.rounds,
            self.callers
        );
        let _ = writeln!(text, "{peaks}");
        if !others.is_empty() {
            let _ = writeln!(text, "{others}");
        }
        let reloads = self.reloads.as_ref().map(Reloads::table);
        let checkpoints = self.checkpoints.as_ref().map(Checkpoints::table);
        let access = self.access.as_ref().map(Access::table);
        let tls = self.tls.as_ref().map(Tls::table);
        for part in [reloads, checkpoints, access, tls].into_iter().flatten() {
            let _ = writeln!(text, "{part}");
        }
        text
    }

    fn ratio_with_aim(&self, peak: &str, subject: Subject, twin: Subject) -> String {
        if subject == twin || self.samples(peak, twin).is_empty() {
            return String::new();
        }
        let ratio = self.ratio(peak, subject, twin);
        let aim = AIMS
            .iter()
            .find(|aim| (aim.0, aim.1, aim.2) == (peak, subject, twin));
        aim.map_or_else(
            || format!("{ratio:.2}"),
            |aim| format!("{ratio:.2} [{:.2}]", aim.3),
        )
    }

    /// For machines: every sample, and the ratios.
    pub fn json(&self) -> Result<String> {
        let mut ratios = Vec::new();
        for peak in self.peaks.keys() {
            for subject in [Subject::Redis, Subject::RedisFar, Subject::Embedded] {
                for twin in [Subject::DefaultTwin, Subject::PerCoreTwin] {
                    let ratio = self.ratio(peak, subject, twin);
                    ratios.push(serde_json::json!({"peak": peak, "subject": subject, "twin": twin, "ratio": ratio}));
                }
            }
        }
        let whole = serde_json::json!({"cores": cores(), "ratios": ratios, "measured": self});
        Ok(serde_json::to_string_pretty(&whole)?)
    }
}
