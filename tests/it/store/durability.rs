//! The embedded store's file: what a killed process leaves, and who may open it.
//! It does not know what the records mean.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use riptide_persistence::store::{
    Add, Batch, Commit, Count, Error, Expiry, Incarnation, Key, Metered, Space, Store, Table,
    Tallied, Tally, Unit, Write, charge, embedded::Embedded,
};

/// Names the folder to the writing child, which is this binary again.
const FOLDER: &str = "EMBEDDED_STORE_TO_WRITE_TO";

fn space() -> Space {
    Space::tenant(Incarnation::parse("0000000000000001").unwrap())
}

fn entry(number: u64) -> Key {
    Key::new(Table::Entry, format!("e{number}"))
}

fn control(number: u64) -> Key {
    Key::new(Table::Control, format!("c{number}"))
}

const ROW: Bytes = Bytes::from_static(b"controls");

/// Counts one more control record.
fn one_more() -> Tally {
    Tally {
        adds: vec![Add {
            row: ROW,
            keep_ms: None,
            counts: vec![Count {
                name: ROW,
                amount: 1,
                limit: None,
            }],
        }],
        ..Tally::default()
    }
}

/// Writes until it is killed, and says what was acknowledged, line by line. Not
/// a test of its own: without the folder it has nothing to do.
#[tokio::test]
async fn writing_child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let store = Arc::new(Embedded::open(Path::new(&folder)).unwrap());
    let out = Arc::new(std::sync::Mutex::new(std::io::stdout()));
    let say = move |line: String| {
        let mut out = out.lock().unwrap();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    };
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4u64 {
        let (store, say) = (store.clone(), say.clone());
        writers.spawn(async move {
            for round in 0.. {
                let number = round * 4 + writer;
                let write = match writer {
                    0 => Write::put(control(number), number.to_string()),
                    1 => Write::put(entry(number), number.to_string())
                        .expiring(Expiry::AfterMs(300 + round % 900)),
                    _ => Write::put(entry(number), number.to_string()),
                };
                if writer == 0 {
                    let tallied = store.tally(&space(), one_more()).await.unwrap();
                    assert!(matches!(tallied, Tallied::Added(_)));
                }
                let batch = Batch {
                    metered: Metered {
                        operations: 1,
                        bytes: 0,
                    },
                    ..Batch::of([write])
                };
                match store.commit(&space(), batch).await.unwrap() {
                    Commit::Applied(_) => say(format!(
                        "{} {number}",
                        if writer == 0 { "control" } else { "entry" }
                    )),
                    Commit::Refused(refusal) => panic!("{refusal:?}"),
                }
            }
        });
    }
    writers.join_all().await;
}

fn start_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::durability::writing_child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child acknowledged, with the time its line was read.
fn acknowledged(child: &mut Child, lifetime: Duration) -> BTreeMap<(bool, u64), Instant> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut seen = BTreeMap::new();
        for line in out.lines().map_while(Result::ok) {
            // The test harness prints its own lines, and one may be cut short.
            let Some((kind, number)) = line.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            if ["control", "entry"].contains(&kind) {
                seen.insert((kind == "control", number), Instant::now());
            }
        }
        seen
    });
    std::thread::sleep(lifetime);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_promised_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let (mut controls, mut entries) = (0, 0);
    for round in 0..3 {
        // When it is killed within its second of grace is left to chance.
        let lifetime = 1100 + u64::from(std::process::id()) * (round + 1) % 500;
        let mut child = start_child(folder.path());
        let seen = acknowledged(&mut child, Duration::from_millis(lifetime));
        let killed = Instant::now();
        assert!(
            seen.keys().any(|(control, _)| *control),
            "round {round}: the child wrote"
        );

        let store = Embedded::open(folder.path()).unwrap();
        assert!(store.audit(&space()).await.unwrap().agrees());
        let count = |control: bool| seen.keys().filter(|(of, _)| *of == control).count() as u64;
        controls += count(true);
        let rows = store.rows(&space(), &[ROW]).await.unwrap();
        let [(_, tallied)] = rows[0][..] else {
            panic!("{rows:?}");
        };
        assert!(tallied >= controls, "{tallied} of {controls} were kept");
        // Each child had at most one in flight, and one that it could not say.
        assert!(
            tallied <= controls + 2 * (round + 1),
            "{tallied} of {controls}"
        );
        let old = seen
            .iter()
            .filter(|((control, _), read_at)| {
                *control || killed - **read_at > Duration::from_secs(1)
            })
            .count() as u64;
        let metered = store.meters(&space(), Unit::Day).await.unwrap().now();
        assert!(metered.operations >= entries + old, "{metered:?}");
        entries = metered.operations;
        let mut kept = 0;
        for ((is_control, number), read_at) in seen {
            let old = killed - read_at > Duration::from_secs(1);
            // Some entries have ended by now; those are the ones of writer 1.
            if is_control || (old && number % 4 != 1) {
                let key = if is_control {
                    control(number)
                } else {
                    entry(number)
                };
                let read = store
                    .read(&space(), 0, std::slice::from_ref(&key))
                    .await
                    .unwrap();
                let record = read.records[0]
                    .as_ref()
                    .unwrap_or_else(|| panic!("round {round}: {key:?} is lost"));
                assert_eq!(record.value, number.to_string());
                kept += 1;
            }
        }
        assert!(kept > 0);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn versions_are_not_given_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut highest = 0;
    for _ in 0..3 {
        let store = Embedded::open(folder.path()).unwrap();
        for _ in 0..3 {
            let put = store
                .commit(&space(), Batch::of([Write::put(entry(1), "v")]))
                .await
                .unwrap();
            let Commit::Applied(_) = put else {
                panic!("{put:?}")
            };
            let version = store.read(&space(), 0, &[entry(1)]).await.unwrap().records[0]
                .as_ref()
                .unwrap()
                .version;
            assert!(version > highest);
            highest = version;
        }
        // The copy is the file as a crash would leave it.
        let copy = tempfile::tempdir().unwrap();
        fs::copy(
            folder.path().join("store.redb"),
            copy.path().join("store.redb"),
        )
        .unwrap();
        let crashed = Embedded::open(copy.path()).unwrap();
        crashed
            .commit(&space(), Batch::of([Write::put(entry(1), "v")]))
            .await
            .unwrap();
        let record = crashed
            .read(&space(), 0, &[entry(1)])
            .await
            .unwrap()
            .records[0]
            .clone()
            .unwrap();
        assert!(
            record.version > highest,
            "{} after {highest}",
            record.version
        );
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/when/missing");
    let view = {
        let store = Embedded::open(&path).unwrap();
        store
            .commit(&space(), Batch::of([Write::put(entry(1), "v")]))
            .await
            .unwrap();
        let ends = Write::put(entry(2), "v").expiring(Expiry::AfterMs(3_600_000));
        store.commit(&space(), Batch::of([ends])).await.unwrap();
        store
            .commit(
                &space(),
                Batch::of([Write::put(Key::new(Table::Tenant, "t"), "v")]),
            )
            .await
            .unwrap();
        store.read(&space(), 0, &[]).await.unwrap().view
        // It is dropped without a close.
    };
    let store = Embedded::open(&path).unwrap();
    let read = store
        .read(
            &space(),
            0,
            &[entry(1), entry(2), Key::new(Table::Tenant, "t")],
        )
        .await
        .unwrap();
    assert_eq!(read.view, view);
    assert!(read.records.iter().all(Option::is_some));
    let usage = store.usage(&space()).await.unwrap();
    assert_eq!(
        (usage.entries, usage.bytes),
        (3, 2 * charge(b"e1", 1) + charge(b"t", 1))
    );
    assert!(store.audit(&space()).await.unwrap().agrees());
}

#[tokio::test]
async fn a_folder_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let error = Embedded::open(folder.path()).err().unwrap();
    let Error::Unusable(text) = &error else {
        panic!("{error}")
    };
    assert!(
        text.contains(&folder.path().display().to_string()) && text.contains("in use"),
        "{text}"
    );
    store
        .commit(&space(), Batch::of([Write::put(entry(1), "v")]))
        .await
        .unwrap();
    store.close().await.unwrap();
    let again = Embedded::open(folder.path()).unwrap();
    assert!(again.read(&space(), 0, &[entry(1)]).await.unwrap().records[0].is_some());
}

#[tokio::test]
async fn another_process_is_refused_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start_child(folder.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("control")))
        .unwrap()
        .unwrap();
    let error = Embedded::open(folder.path()).err().unwrap();
    assert!(
        matches!(&error, Error::Unusable(text) if text.contains("in use")),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    Embedded::open(folder.path()).unwrap();
}

/// Fills the disk it was given and says what it saw. Not a test of its own.
#[tokio::test]
async fn filling_child() {
    let Ok(folder) = std::env::var(FOLDER_TO_FILL) else {
        return;
    };
    let store = Embedded::open(Path::new(&folder)).unwrap();
    let mut kept = 0;
    let error = loop {
        let put = Write::put(control(kept), vec![b'v'; 50_000]);
        match store.commit(&space(), Batch::of([put])).await {
            Ok(Commit::Applied(_)) => kept += 1,
            Ok(refused) => panic!("{refused:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    for number in 0..=kept {
        let read = store.read(&space(), 0, &[control(number)]).await.unwrap();
        assert_eq!(read.records[0].is_some(), number < kept, "{number}");
    }
    println!("kept {kept}");
}

const FOLDER_TO_FILL: &str = "EMBEDDED_STORE_TO_FILL";

#[tokio::test]
async fn a_disk_without_room_is_told_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // Files of this child may not grow beyond some megabytes.
    let limited = r#"trap "" XFSZ; ulimit -f 8192; exec "$0" "$@""#;
    let child = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::durability::filling_child", "--nocapture"])
        .env(FOLDER_TO_FILL, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&child.stderr)
    );
    let kept = said
        .lines()
        .find_map(|line| line.strip_prefix("kept ")?.parse().ok());
    let kept: u64 = kept.unwrap();
    assert!(kept > 10);

    let store = Embedded::open(folder.path()).unwrap();
    for number in 0..=kept {
        let read = store.read(&space(), 0, &[control(number)]).await.unwrap();
        assert_eq!(read.records[0].is_some(), number < kept, "{number}");
    }
    let put = Write::put(control(kept), vec![b'v'; 50_000]);
    assert!(matches!(
        store.commit(&space(), Batch::of([put])).await,
        Ok(Commit::Applied(_))
    ));
}
