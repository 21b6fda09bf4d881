//! How the writes of a batch stand together. It does not know what limits do.

use riptide_persistence::store::{Error, Mode};

use super::*;

pub async fn a_batch_applied_whole_stands_or_falls(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("b"), "old")).await;
    let before = counted(store, &space).await;
    let writes = [
        Write::put(entry("a"), "new"),
        Write::delete(entry("b")),
        touch(entry("b2"), Expiry::AfterMs(1)),
        Write::put(key(Table::Control, "c"), "new").when(Check::Present),
    ];
    refused(store, &space, Batch::of(writes.clone())).await;
    assert_eq!(value(store, &space, entry("a")).await, None);
    assert_eq!(value(store, &space, entry("b")).await, Some("old".into()));
    assert_eq!(counted(store, &space).await, before);

    write(store, &space, Write::put(key(Table::Control, "c"), "old")).await;
    applied(store, &space, Batch::of(writes)).await;
    assert_eq!(value(store, &space, entry("a")).await, Some("new".into()));
    assert_eq!(value(store, &space, entry("b")).await, None);
    assert_eq!(
        value(store, &space, key(Table::Control, "c")).await,
        Some("new".into())
    );
    assert_agrees(store, &space).await;
}

pub async fn a_batch_of_single_writes_decides_each(store: &Handle) {
    let space = space();
    let writes = [
        Write::put(entry("a"), "v").when(Check::Present),
        Write::put(entry("b"), "v").when(Check::Absent),
        Write::delete(entry("c")),
    ];
    let batch = Batch {
        mode: Mode::Each,
        ..Batch::of(writes)
    };
    let applied = applied(store, &space, batch).await;
    assert_eq!(applied.outcomes.len(), 3);
    assert_eq!(
        applied.outcomes[0],
        Outcome::Refused(Refusal::Conflict {
            write: 0,
            found: None
        })
    );
    assert!(matches!(
        applied.outcomes[1],
        Outcome::Done { existed: false, .. }
    ));
    assert_eq!(
        applied.outcomes[2],
        Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }
    );
    assert_eq!(applied.usage.entries, 1);
    assert_eq!(value(store, &space, entry("b")).await, Some("v".into()));
    assert_agrees(store, &space).await;
}

pub async fn single_writes_see_those_before_them(store: &Handle) {
    let space = space();
    let writes = [
        ending(entry("k"), "first", 60_000).when(Check::Absent),
        Write::put(entry("k"), "second!").when(Check::Absent),
        Write::put(entry("k"), "third").when(Check::Present),
        Write::delete(entry("k")).when(Check::Present),
        Write::put(entry("k"), "last").when(Check::Absent),
        touch(entry("k"), Expiry::AfterMs(120_000)),
    ];
    let applied = applied(
        store,
        &space,
        Batch {
            mode: Mode::Each,
            ..Batch::of(writes)
        },
    )
    .await;
    let refused: Vec<bool> = applied
        .outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Refused(_)))
        .collect();
    assert_eq!(refused, [false, true, false, false, false, false]);
    let record = record(store, &space, entry("k")).await.unwrap();
    assert_eq!(record.value, "last");
    assert!(record.expire_ms.is_some());
    assert_eq!(applied.usage.entries, 1);
    assert_agrees(store, &space).await;
}

pub async fn misuse_is_named_and_writes_nothing(store: &Handle) {
    let space = space();
    let good = || Write::put(entry("good"), "v");
    let twice = vec![
        good(),
        Write::put(entry("k"), "1"),
        Write::delete(entry("k")),
    ];
    let at_once = vec![good(), ending(entry("k"), "v", 0)];
    let touched_at_once = vec![good(), touch(entry("k"), Expiry::AfterMs(0))];
    let nameless = vec![good(), Write::put(entry(""), "v")];
    for writes in [twice, at_once, touched_at_once, nameless] {
        let error = store
            .commit(&space, Batch::of(writes.clone()))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Misuse(_)),
            "{writes:?} gives {error}"
        );
    }
    assert_eq!(view(store, &space).await, View::default());
    assert_eq!(value(store, &space, entry("good")).await, None);
}

pub async fn an_empty_batch_is_applied(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "v")).await;
    let before = view(store, &space).await;
    let applied = applied(store, &space, Batch::default()).await;
    assert_eq!(applied.view, before);
    assert_eq!(applied.outcomes, []);
    assert_eq!(applied.usage.entries, 1);
}
