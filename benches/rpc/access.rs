//! What it costs to tell of calls: near hits of servers that tell of none, of those that
//! fail (as shipped), of one in a hundred, and of all; and of one that records spans of
//! one in a hundred. It does not know how a line is written.

use std::{fs, path::Path};

use anyhow::Result;
use serde::Serialize;

use crate::{
    load::{self, Pressure},
    process::{On, Process},
    report::{
        Sample,
        form::{median, table},
    },
    scenario,
};

/// Entries that are read.
const KEYS: usize = 1000;

/// The settings that are compared with the first. The lines go where they cost least, so
/// that it is the server that is measured; nobody takes the spans.
const CASES: [(&str, &str); 5] = [
    ("log.access: off", "log: {access: 'off'}"),
    ("errors", "log: {access: errors}"),
    ("all, 1 in 100", "log: {access: all, access_sample: 100}"),
    ("all", "log: {access: all}"),
    (
        "errors, and spans of 1 in 100",
        "trace: {otlp_endpoint: 'http://127.0.0.1:9', sample_ratio: 0.01}",
    ),
];

/// A sample of each case a round, in their order.
#[derive(Serialize)]
pub struct Access {
    samples: Vec<Vec<Sample>>,
}

/// Measures each case in each round.
pub fn measure(scratch: &Path, rounds: usize, pressure: Pressure) -> Result<Access> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut servers = Vec::new();
    for (index, (_, settings)) in CASES.iter().enumerate() {
        let folder = scratch.join(format!("access-{index}"));
        fs::create_dir_all(&folder)?;
        let file = folder.join("persistence.yml");
        fs::write(file, format!("persistence:\n  {settings}\n"))?;
        let store = folder.join("store");
        let server = Process::server(&On::Embedded(&store), &folder, Path::new("/dev/null"))?;
        let work = runtime.block_on(async {
            let key = scenario::create_tenant(server.address, "access").await?;
            scenario::hits(server.address, &key, KEYS).await
        })?;
        servers.push((server, work));
    }
    let mut samples = CASES.map(|_| Vec::new()).into_iter().collect::<Vec<_>>();
    for round in 0..rounds {
        let mut order: Vec<_> = servers.iter().zip(&mut samples).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for ((server, work), samples) in order {
            let watched = [std::process::id(), server.pid()];
            let tally = load::run(server.address, work, pressure, &watched)?;
            samples.push(Sample::of(&tally));
        }
    }
    for (server, _) in servers {
        server.stop()?;
    }
    Ok(Access { samples })
}

impl Access {
    /// For people.
    pub fn table(&self) -> String {
        let mut runs = table(&[
            "near hits of 1 KiB",
            "calls/s",
            "of the first",
            "server CPU s/M",
            "of the first",
        ]);
        let Some(first) = self.samples.first() else {
            return String::new();
        };
        for ((name, _), samples) in CASES.iter().zip(&self.samples) {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            let ratio = |figure: fn(&Sample) -> f64| {
                let pairs = samples.iter().zip(first);
                median(pairs.map(|(this, first)| figure(this) / figure(first)))
            };
            runs.add_row([
                (*name).to_owned(),
                format!("{:.0}", of(|sample| sample.per_second)),
                format!("x{:.3}", ratio(|sample| sample.per_second)),
                format!("{:.2}", of(|sample| sample.cpu(1))),
                format!("x{:.3}", ratio(|sample| sample.cpu(1))),
            ]);
        }
        format!("{runs}\n")
    }
}
