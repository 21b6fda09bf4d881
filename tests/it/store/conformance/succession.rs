//! Spaces that are fenced, and those that go on where others ended. It does not know
//! why a space is given up for another.

use riptide_persistence::store::{
    Heritage, Inheritance, Metered, Meters, Opening, Reading, Step, Unit,
};

use super::*;

fn stepping(step: Step) -> Batch {
    Batch {
        step: Some(step),
        ..Batch::default()
    }
}

fn inheriting(version: u64, meters: Option<Heritage>) -> Batch {
    stepping(Step::Inherit(Box::new(Inheritance { version, meters })))
}

async fn heritage(store: &Handle, space: &Space) -> Heritage {
    Heritage {
        minutes: store.meters(space, Unit::Minute).await.unwrap(),
        hours: store.meters(space, Unit::Hour).await.unwrap(),
        days: store.meters(space, Unit::Day).await.unwrap(),
        expired: store.usage(space).await.unwrap().expired,
    }
}

pub async fn a_fenced_space_is_read_and_not_written(store: &Handle) {
    let space = space();
    let put = Batch {
        metered: Metered {
            operations: 3,
            bytes: 5,
        },
        ..Batch::of([
            Write::put(entry("k"), "v"),
            Write::put(entry("ends"), "v").expiring(Expiry::AfterMs(30)),
        ])
    };
    let before = applied(store, &space, put).await;
    let fenced = applied(store, &space, stepping(Step::Fence)).await;
    assert_eq!(fenced.view, before.view, "readers need not look again");
    for batch in [
        Batch::of([Write::put(entry("k"), "w")]),
        Batch::of([Write::check(entry("k"), Check::Present)]),
        Batch {
            view: Some(before.view),
            ..Batch::of([Write::delete(entry("k"))])
        },
        Batch::default(),
        stepping(Step::Epoch),
        stepping(Step::Era),
        stepping(Step::Generation),
        stepping(Step::Fence),
        inheriting(9, None),
    ] {
        assert_eq!(refused(store, &space, batch).await, Refusal::Fenced);
    }
    let read = store
        .read(&space, before.view.generation, &[entry("k")])
        .await
        .unwrap();
    assert_eq!(read.view, before.view);
    assert!(read.records.iter().all(Option::is_some));
    // What has its time ends all the same, and is counted no more; the fence stands.
    while counted(store, &space).await.0 > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(store.audit(&space).await.unwrap().agrees());
    let meters = store.meters(&space, Unit::Day).await.unwrap();
    assert_eq!((meters.last.operations, meters.last.bytes), (3, 5));
    assert!(meters.now().byte_ms > 0);
    let refusal = refused(store, &space, Batch::of([Write::put(entry("k"), "w")])).await;
    assert_eq!(refusal, Refusal::Fenced);

    let removed = applied(store, &space, stepping(Step::Remove)).await;
    assert_eq!(removed.usage.entries, 1);
    let refusal = refused(store, &space, Batch::of([Write::put(entry("k"), "w")])).await;
    assert_eq!(refusal, Refusal::Gone);
}

pub async fn what_is_due_when_a_fenced_space_goes_keeps_the_fence(store: &Handle) {
    let space = space();
    // More buckets than one script uncounts.
    let writes = (0..200)
        .map(|n| Write::put(entry(format!("k{n}")), "v").expiring(Expiry::AfterMs(1 + 50 * n)));
    applied(store, &space, Batch::of(writes)).await;
    applied(store, &space, stepping(Step::Fence)).await;
    while counted(store, &space).await.0 > 0 {
        let refusal = refused(store, &space, Batch::of([Write::put(entry("k"), "w")])).await;
        assert_eq!(refusal, Refusal::Fenced);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    applied(store, &space, stepping(Step::Remove)).await;
}

pub async fn a_removed_space_shows_a_view_of_its_own(store: &Handle) {
    let space = space();
    applied(store, &space, Batch::of([Write::put(entry("k"), "v")])).await;
    applied(store, &space, stepping(Step::Remove)).await;
    assert_eq!(view(store, &space).await, View::GONE);
}

pub async fn versions_go_on_above_what_is_inherited(store: &Handle) {
    let space = space();
    let begun = applied(store, &space, inheriting(1 << 40, None)).await;
    assert_eq!(begun.view.epoch, 1, "it is a commit like any other");
    assert_eq!(
        write(store, &space, Write::put(entry("k"), "v")).await,
        (1 << 40) + 1
    );
    // It never takes a step back.
    applied(store, &space, inheriting(7, None)).await;
    assert_eq!(
        write(store, &space, Write::put(entry("k"), "v")).await,
        (1 << 40) + 2
    );
    let stale = Batch {
        view: Some(View::default()),
        ..inheriting(1 << 41, None)
    };
    let refusal = refused(store, &space, stale).await;
    assert!(matches!(refusal, Refusal::Stale(_)));
    assert_eq!(
        write(store, &space, Write::put(entry("k"), "v")).await,
        (1 << 40) + 3
    );
}

pub async fn meters_go_on_from_what_is_inherited(store: &Handle) {
    let (old, new) = (space(), space());
    let metered = |operations, bytes| Metered { operations, bytes };
    let first = Batch {
        metered: metered(10, 1000),
        ..Batch::of([Write::put(entry("k"), vec![7; 500])])
    };
    applied(store, &old, first).await;
    // What is held before it inherits is nobody's.
    applied(
        store,
        &new,
        Batch::of([Write::put(entry("k"), vec![7; 900])]),
    )
    .await;
    applied(store, &old, stepping(Step::Fence)).await;
    let left = heritage(store, &old).await;
    applied(store, &new, inheriting(0, Some(left.clone()))).await;

    let after = store.meters(&new, Unit::Day).await.unwrap();
    assert_eq!((after.last.operations, after.last.bytes), (10, 1000));
    assert_eq!(after.last.byte_ms, left.days.now().byte_ms);
    assert!(after.last.at_ms >= left.days.now_ms);
    assert_eq!(after.held_bytes, counted(store, &new).await.1);
    let second = Batch {
        metered: metered(1, 7),
        ..Batch::default()
    };
    applied(store, &new, second).await;
    let last = store.meters(&new, Unit::Day).await.unwrap();
    assert_eq!((last.last.operations, last.last.bytes), (11, 1007));
    let held = u128::from(after.held_bytes) * u128::from(last.last.at_ms - after.last.at_ms);
    assert_eq!(last.last.byte_ms, after.last.byte_ms + held);
}

pub async fn borders_are_told_as_they_were_inherited(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "v")).await;
    let now_ms = store.now_ms();
    let reading = |at_ms, byte_ms, operations| Reading {
        at_ms,
        byte_ms,
        operations,
        bytes: operations * 3,
    };
    // It moved six and three days ago, and has been read yesterday.
    let day = Unit::Day.ms();
    let today = Unit::Day.start_ms(now_ms);
    let large = u128::from(u64::MAX) * 4;
    let openings = vec![
        Opening {
            start_ms: today - 6 * day,
            before: Reading::default(),
            held_bytes: 0,
        },
        Opening {
            start_ms: today - 3 * day,
            before: reading(today - 6 * day + 5, large, 4),
            held_bytes: 10,
        },
    ];
    let last = reading(today - 3 * day + 1000, large + 10 * u128::from(3 * day), 9);
    let meters = |openings| Meters {
        last,
        held_bytes: 20,
        now_ms: today - day,
        openings,
    };
    let heritage = Heritage {
        minutes: meters(Vec::new()),
        hours: meters(Vec::new()),
        days: meters(openings),
        expired: 42,
    };
    let expected = heritage.days.clone();
    applied(store, &space, inheriting(0, Some(heritage))).await;

    let found = store.meters(&space, Unit::Day).await.unwrap();
    for border in (0..=5)
        .map(|days| today - days * day)
        .filter(|at| *at <= expected.now_ms)
    {
        assert_eq!(found.at(border), expected.at(border), "{border}");
    }
    // Over the gap nothing was held, and what is held now counts from now on.
    assert_eq!(found.at(today).byte_ms, expected.now().byte_ms);
    assert_eq!(found.last.byte_ms, expected.now().byte_ms);
    assert!(found.last.at_ms >= now_ms);
    assert_eq!(found.held_bytes, counted(store, &space).await.1);
    assert_eq!(store.usage(&space).await.unwrap().expired, 42);
}

pub async fn misuse_of_inheritance_is_named(store: &Handle) {
    let space = space();
    for batch in [
        Batch {
            writes: vec![Write::put(entry("k"), "v")],
            ..inheriting(1, None)
        },
        inheriting(1 << 53, None),
    ] {
        let error = store.commit(&space, batch).await.unwrap_err();
        assert!(
            matches!(error, riptide_persistence::store::Error::Misuse(_)),
            "{error}"
        );
    }
    assert_eq!(view(store, &space).await, View::default());
}
