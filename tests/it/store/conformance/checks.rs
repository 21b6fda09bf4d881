//! Checks, outcomes and versions. It does not know what limits do.

use super::*;

pub async fn absent(store: &Handle) {
    let space = space();
    let create = || Write::put(entry("k"), "v").when(Check::Absent);
    let version = write(store, &space, create()).await;
    let refusal = refused(store, &space, Batch::of([create()])).await;
    assert_eq!(
        refusal,
        Refusal::Conflict {
            write: 0,
            found: Some(version)
        }
    );
    write(store, &space, Write::delete(entry("k"))).await;
    assert!(write(store, &space, create()).await > version);
}

pub async fn present_and_version_checks(store: &Handle) {
    let space = space();
    let put = |check| Batch::of([Write::put(entry("k"), "v").when(check)]);
    let missing = Refusal::Conflict {
        write: 0,
        found: None,
    };
    assert_eq!(refused(store, &space, put(Check::Present)).await, missing);
    assert_eq!(
        refused(store, &space, put(Check::Version(1))).await,
        missing
    );
    assert_eq!(
        view(store, &space).await,
        View::default(),
        "a refusal writes nothing"
    );

    let first = write(store, &space, Write::put(entry("k"), "v")).await;
    applied(store, &space, put(Check::Present)).await;
    let second = record(store, &space, entry("k")).await.unwrap().version;
    assert!(second > first);
    let refusal = refused(store, &space, put(Check::Version(first))).await;
    assert_eq!(
        refusal,
        Refusal::Conflict {
            write: 0,
            found: Some(second)
        }
    );
    applied(store, &space, put(Check::Version(second))).await;
    let third = record(store, &space, entry("k")).await.unwrap().version;
    let delete = Batch::of([Write::delete(entry("k")).when(Check::Version(second))]);
    assert_eq!(
        refused(store, &space, delete).await,
        Refusal::Conflict {
            write: 0,
            found: Some(third)
        }
    );
}

pub async fn a_check_alone_decides_a_batch(store: &Handle) {
    let space = space();
    let batch = |check| {
        Batch::of([
            Write::check(key(Table::Control, "lock"), check),
            Write::put(entry("k"), "v"),
        ])
    };
    assert!(matches!(
        refused(store, &space, batch(Check::Present)).await,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    ));
    assert_eq!(value(store, &space, entry("k")).await, None);

    let applied = applied(store, &space, batch(Check::Absent)).await;
    assert_eq!(
        applied.outcomes[0],
        Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }
    );
    let version = write(store, &space, Write::put(key(Table::Control, "lock"), "")).await;
    let checked = super::applied(store, &space, batch(Check::Version(version))).await;
    assert_eq!(
        checked.outcomes[0],
        Outcome::Done {
            existed: true,
            version,
            expire_ms: None
        }
    );
}

pub async fn a_conflict_names_the_write_and_the_version_found(store: &Handle) {
    let space = space();
    let version = write(store, &space, Write::put(entry("c"), "v")).await;
    let writes = [
        Write::put(entry("a"), "v"),
        Write::put(entry("b"), "v").when(Check::Absent),
        Write::put(entry("c"), "v").when(Check::Absent),
        Write::put(entry("d"), "v").when(Check::Present),
    ];
    let refusal = refused(store, &space, Batch::of(writes)).await;
    assert_eq!(
        refusal,
        Refusal::Conflict {
            write: 2,
            found: Some(version)
        },
        "the first that does not hold"
    );
}

pub async fn an_expired_record_is_absent_to_checks(store: &Handle) {
    let space = space();
    let applied = applied(store, &space, Batch::of([ending(entry("k"), "v", 30)])).await;
    let Outcome::Done {
        expire_ms: Some(end),
        ..
    } = applied.outcomes[0]
    else {
        panic!("{applied:?}");
    };
    while store.now_ms() <= end + 20 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let refusal = refused(
        store,
        &space,
        Batch::of([Write::delete(entry("k")).when(Check::Present)]),
    )
    .await;
    assert_eq!(
        refusal,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
    let again = super::applied(
        store,
        &space,
        Batch::of([Write::put(entry("k"), "w").when(Check::Absent)]),
    )
    .await;
    assert!(matches!(
        again.outcomes[0],
        Outcome::Done { existed: false, .. }
    ));
    assert_eq!(counted(store, &space).await.0, 1);
    assert_agrees(store, &space).await;
}

pub async fn a_floor_hides_old_records_from_a_write(store: &Handle) {
    let space = space();
    let old = write(store, &space, Write::put(entry("k"), "old")).await;
    let usage = counted(store, &space).await;

    let refusal = refused(
        store,
        &space,
        Batch::of([Write::delete(entry("k")).when(Check::Present).above(old)]),
    )
    .await;
    assert_eq!(
        refusal,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
    let touched = applied(
        store,
        &space,
        Batch::of([touch(entry("k"), Expiry::AfterMs(60_000)).above(old)]),
    )
    .await;
    assert_eq!(
        touched.outcomes,
        [Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }]
    );
    assert_eq!(
        record(store, &space, entry("k")).await.unwrap().expire_ms,
        None
    );

    let deleted = applied(
        store,
        &space,
        Batch::of([Write::delete(entry("k")).above(old)]),
    )
    .await;
    assert_eq!(
        deleted.outcomes,
        [Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }]
    );
    assert_eq!(
        value(store, &space, entry("k")).await,
        None,
        "it is removed all the same"
    );
    assert_eq!(counted(store, &space).await, (0, 0));

    let old = write(store, &space, Write::put(entry("k"), "old")).await;
    let put = Write::put(entry("k"), "new").when(Check::Absent).above(old);
    let put = applied(store, &space, Batch::of([put])).await;
    assert!(
        matches!(put.outcomes[0], Outcome::Done { existed: false, version, .. } if version > old)
    );
    assert_eq!(
        counted(store, &space).await,
        usage,
        "the hidden one is replaced, not added to"
    );
    let seen = applied(
        store,
        &space,
        Batch::of([Write::check(entry("k"), Check::Present).above(old)]),
    )
    .await;
    assert!(matches!(
        seen.outcomes[0],
        Outcome::Done { existed: true, .. }
    ));
    assert_agrees(store, &space).await;
}

pub async fn versions_grow_and_are_never_zero(store: &Handle) {
    let space = space();
    let mut last = 0;
    for round in 0..3 {
        for name in ["a", "b"] {
            let version = write(store, &space, Write::put(entry(name), "v")).await;
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        write(store, &space, Write::delete(entry("a"))).await;
        if round == 1 {
            let flush = Batch {
                step: Some(riptide_persistence::store::Step::Generation),
                ..Batch::default()
            };
            applied(store, &space, flush).await;
        }
    }
    let batch = Batch::of([Write::put(entry("x"), "v"), Write::put(entry("y"), "v")]);
    for outcome in applied(store, &space, batch).await.outcomes {
        let Outcome::Done { version, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(version > last, "versions in a batch differ");
        last = version;
    }
    assert_eq!(
        record(store, &space, entry("y")).await.unwrap().version,
        last
    );
}

pub async fn outcomes_tell_what_was_and_what_is(store: &Handle) {
    let space = space();
    let one = |write| Batch::of([write]);
    let before = store.now_ms();
    let put = applied(store, &space, one(ending(entry("k"), "v", 60_000))).await;
    let Outcome::Done {
        existed: false,
        version,
        expire_ms: Some(end),
    } = put.outcomes[0]
    else {
        panic!("{put:?}");
    };
    assert!(
        end + 50 >= before + 60_000 && end <= store.now_ms() + 60_050,
        "{end} from {before}"
    );
    let record = record(store, &space, entry("k")).await.unwrap();
    assert_eq!((record.version, record.expire_ms), (version, Some(end)));

    let checked = applied(store, &space, one(Write::check(entry("k"), Check::Any))).await;
    assert_eq!(
        checked.outcomes,
        [Outcome::Done {
            existed: true,
            version,
            expire_ms: Some(end)
        }]
    );
    let put = applied(store, &space, one(Write::put(entry("k"), "w"))).await;
    assert!(
        matches!(put.outcomes[0], Outcome::Done { existed: true, version: new, expire_ms: None } if new > version)
    );
    let deleted = applied(store, &space, one(Write::delete(entry("k")))).await;
    assert_eq!(
        deleted.outcomes,
        [Outcome::Done {
            existed: true,
            version: 0,
            expire_ms: None
        }]
    );
    let deleted = applied(store, &space, one(Write::delete(entry("k")))).await;
    assert_eq!(
        deleted.outcomes,
        [Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }]
    );
}
