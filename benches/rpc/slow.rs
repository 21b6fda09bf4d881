//! Commands of a Redis that took long, as it notes them itself, by names. It does not
//! know what they were for. What Redis notes is time that passes: on a busy machine also
//! that in which it did not run.

use std::{collections::BTreeMap, sync::LazyLock};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{redis::Redis, script::Scripts};

/// Redis notes commands that take longer, in microseconds.
const SLOW_US: &str = "2000";

/// A command that took longer.
#[derive(Clone, Serialize)]
pub struct Slow {
    /// Its name, or that of the script.
    pub name: String,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// Begins to note.
pub fn watch(redis: &Redis) {
    redis.cli(&["config", "set", "slowlog-log-slower-than", SLOW_US]);
    redis.cli(&["config", "set", "slowlog-max-len", "10000"]);
    forget(redis);
}

/// Forgets what was noted.
pub fn forget(redis: &Redis) {
    redis.cli(&["slowlog", "reset"]);
}

/// All that was noted.
pub fn all(redis: &Redis) -> Vec<Slow> {
    // Of each: its number, when, how long, its arguments, and who sent it.
    let script = "local all = {} \
        for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '-1')) do \
        all[#all + 1] = entry[3] .. ' ' .. entry[4][1] .. ' ' .. (entry[4][2] or '') end return all";
    let found = redis.cli(&["eval", script, "0"]);
    let found = found.lines().filter_map(|line| {
        let (micros, command) = line.split_once(' ')?;
        let (name, argument) = command.split_once(' ')?;
        Some(Slow {
            name: named(redis, name, argument),
            micros: micros.parse().ok()?,
        })
    });
    found.collect()
}

/// How many there are of each name, and the longest.
pub fn told<'a>(all: impl Iterator<Item = &'a Slow>) -> String {
    let mut by_name: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for slow in all {
        let (count, longest) = by_name.entry(&slow.name).or_default();
        *count += 1;
        *longest = slow.micros.max(*longest);
    }
    if by_name.is_empty() {
        return "none".to_owned();
    }
    let told = by_name.iter().map(|(name, (count, longest))| {
        let longest_ms = *longest as f64 / 1e3;
        format!("{count} {name}, to {longest_ms:.1} ms")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// The process of a Redis.
pub fn pid(redis: &Redis) -> Result<u32> {
    let info = redis.cli(&["info", "server"]);
    let mut lines = info.lines();
    let pid = lines.find_map(|line| line.strip_prefix("process_id:"));
    Ok(pid.context("Redis tells its process id")?.trim().parse()?)
}

/// A script's name where it is one of the server's: it is called by a digest.
fn named(redis: &Redis, command: &str, argument: &str) -> String {
    static SCRIPTS: LazyLock<Scripts> = LazyLock::new(Scripts::new);
    if !command.eq_ignore_ascii_case("evalsha") {
        return command.to_ascii_uppercase();
    }
    // Each of them, so that one that is added is not forgotten here.
    let Scripts {
        commit,
        release,
        commits,
        releases,
        list,
        records,
        reclaim,
        sweep,
        tally,
        rows,
        recall,
        lease,
        meters,
        log,
        inherit,
        pin,
        renew,
        unpin,
        copies,
        pinned,
    } = &*SCRIPTS;
    let all = [
        ("commit", commit),
        ("release", release),
        ("commits", commits),
        ("releases", releases),
        ("list", list),
        ("records", records),
        ("reclaim", reclaim),
        ("sweep", sweep),
        ("tally", tally),
        ("rows", rows),
        ("recall", recall),
        ("lease", lease),
        ("meters", meters),
        ("log", log),
        ("inherit", inherit),
        ("pin", pin),
        ("renew", renew),
        ("unpin", unpin),
        ("copies", copies),
        ("pinned", pinned),
    ];
    let found = all.into_iter().find(|(_, script)| {
        let text = script.text();
        let text = String::from_utf8_lossy(&text);
        redis.cli(&["eval", "return redis.sha1hex(ARGV[1])", "0", &text]) == argument
    });
    found.map_or_else(|| format!("script {argument}"), |(name, _)| name.to_owned())
}
