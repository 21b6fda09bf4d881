//! Views and the steps that move them. It does not know how what they leave is
//! reclaimed.

use riptide_persistence::store::Step;

use super::*;

fn stepping(step: Step) -> Batch {
    Batch {
        step: Some(step),
        ..Batch::default()
    }
}

fn seeing(view: View, writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch {
        view: Some(view),
        ..Batch::of(writes)
    }
}

pub async fn the_first_commit_makes_epoch_one(store: &Handle) {
    let space = space();
    let unwritten = View {
        epoch: 0,
        generation: 0,
    };
    assert_eq!(view(store, &space).await, unwritten);
    let first = applied(
        store,
        &space,
        seeing(unwritten, [Write::put(entry("k"), "v")]),
    )
    .await;
    assert_eq!(
        first.view,
        View {
            epoch: 1,
            generation: 0
        }
    );
    assert_eq!(view(store, &space).await, first.view);
    let second = applied(
        store,
        &space,
        seeing(first.view, [Write::put(entry("k"), "w")]),
    )
    .await;
    assert_eq!(second.view, first.view);
}

pub async fn a_stale_view_is_refused(store: &Handle) {
    let space = space();
    let old = applied(store, &space, Batch::of([Write::put(entry("k"), "v")]))
        .await
        .view;
    let new = applied(store, &space, stepping(Step::Epoch)).await.view;
    assert_eq!(
        new,
        View {
            epoch: old.epoch + 1,
            generation: old.generation
        }
    );
    for view in [
        old,
        View::default(),
        View {
            epoch: new.epoch,
            generation: 7,
        },
    ] {
        let batch = seeing(
            view,
            [
                Write::put(entry("k"), "w"),
                Write::put(entry("l"), "w").when(Check::Present),
            ],
        );
        assert_eq!(
            refused(store, &space, batch).await,
            Refusal::Stale(new),
            "before any check"
        );
    }
    assert_eq!(value(store, &space, entry("k")).await, Some("v".into()));
    applied(store, &space, seeing(new, [Write::put(entry("k"), "w")])).await;
    applied(
        store,
        &space,
        Batch::of([Write::put(entry("k"), "whatever the view")]),
    )
    .await;
}

pub async fn an_epoch_step_moves_the_epoch(store: &Handle) {
    let space = space();
    let before = applied(store, &space, Batch::of([Write::put(entry("k"), "v")])).await;
    let batch = Batch {
        step: Some(Step::Epoch),
        ..Batch::of([Write::put(key(Table::Control, "floors"), "f")])
    };
    let after = applied(store, &space, batch).await;
    assert_eq!(after.view.epoch, before.view.epoch + 1);
    assert_eq!(view(store, &space).await, after.view);
    assert_eq!(
        value(store, &space, entry("k")).await,
        Some("v".into()),
        "entries stay"
    );
    assert_eq!(
        value(store, &space, key(Table::Control, "floors")).await,
        Some("f".into())
    );
    assert_eq!(counted(store, &space).await.0, 1);
}

pub async fn a_later_epoch_will_do_where_the_batch_says_so(store: &Handle) {
    let space = space();
    let old = applied(store, &space, Batch::of([Write::put(entry("k"), "v")]))
        .await
        .view;
    let later = |view, value: &'static str| Batch {
        later: true,
        ..seeing(view, [Write::put(entry("k"), value)])
    };
    assert_eq!(applied(store, &space, later(old, "same")).await.view, old);
    let new = applied(store, &space, stepping(Step::Epoch)).await.view;
    assert_eq!(applied(store, &space, later(old, "later")).await.view, new);
    assert_eq!(value(store, &space, entry("k")).await, Some("later".into()));
    // An epoch that is still to come was another space's.
    let ahead = View {
        epoch: new.epoch + 1,
        ..new
    };
    let flushed = applied(store, &space, stepping(Step::Generation))
        .await
        .view;
    let beyond = View {
        epoch: flushed.epoch + 1,
        ..flushed
    };
    for view in [ahead, new, beyond] {
        assert_eq!(
            refused(store, &space, later(view, "never")).await,
            Refusal::Stale(flushed)
        );
    }
}

pub async fn a_generation_step_hides_every_entry(store: &Handle) {
    let space = space();
    let before = applied(
        store,
        &space,
        Batch::of([Write::put(entry("k"), "v"), ending(entry("t"), "v", 60_000)]),
    )
    .await;
    let flushed = applied(store, &space, stepping(Step::Generation)).await;
    assert_eq!(flushed.view.epoch, before.view.epoch + 1);
    assert_eq!(flushed.view.generation, before.view.generation + 1);
    assert_eq!(
        (flushed.usage.entries, flushed.usage.bytes),
        (before.usage.entries, before.usage.bytes)
    );

    assert_eq!(value(store, &space, entry("k")).await, None);
    let usage = store.usage(&space).await.unwrap();
    assert_eq!(
        (usage.entries, usage.bytes, usage.orphaned_bytes),
        (0, 0, before.usage.bytes)
    );
    assert_agrees(store, &space).await;
    applied(
        store,
        &space,
        seeing(
            flushed.view,
            [Write::put(entry("k"), "new").when(Check::Absent)],
        ),
    )
    .await;
    assert_eq!(value(store, &space, entry("k")).await, Some("new".into()));
    assert_eq!(counted(store, &space).await.0, 1);
    assert_agrees(store, &space).await;
}

pub async fn a_generation_step_keeps_control_records(store: &Handle) {
    let space = space();
    let records = [
        Table::Control,
        Table::Job,
        Table::Request,
        Table::Meta,
        Table::ApiKey,
        Table::KeyUse,
    ];
    applied(
        store,
        &space,
        Batch::of(records.map(|table| Write::put(key(table, "k"), "v"))),
    )
    .await;
    let batch = Batch {
        step: Some(Step::Generation),
        ..Batch::of([
            Write::put(key(Table::Job, "new"), "v"),
            Write::delete(key(Table::Meta, "k")),
        ])
    };
    applied(store, &space, batch).await;
    for table in records {
        let there = value(store, &space, key(table, "k")).await.is_some();
        assert_eq!(there, table != Table::Meta, "{table:?}");
    }
    assert!(value(store, &space, key(Table::Job, "new")).await.is_some());
}

pub async fn a_removed_space_stays_gone(store: &Handle) {
    let space = space();
    let batch = Batch::of([
        Write::put(entry("k"), "v"),
        Write::put(key(Table::Control, "c"), "v"),
    ]);
    let before = applied(store, &space, batch).await;
    let removed = applied(store, &space, stepping(Step::Remove)).await;
    assert_eq!(
        (removed.usage.entries, removed.usage.bytes),
        (before.usage.entries, before.usage.bytes)
    );
    assert_ne!(
        removed.view, before.view,
        "whoever holds a snapshot must notice"
    );

    let read = store
        .read(
            &space,
            before.view.generation,
            &[entry("k"), key(Table::Control, "c")],
        )
        .await
        .unwrap();
    assert_eq!(read.records, [None, None]);
    assert_ne!(read.view, before.view);
    for batch in [
        Batch::of([Write::put(entry("k"), "v")]),
        Batch {
            view: Some(before.view),
            ..Batch::of([Write::put(entry("k"), "v")])
        },
        Batch::of([Write::check(entry("k"), Check::Present)]),
        Batch::default(),
        stepping(Step::Remove),
    ] {
        assert_eq!(refused(store, &space, batch).await, Refusal::Gone);
    }
    assert_eq!(counted(store, &space).await, (0, 0));
}

pub async fn an_era_ends_what_a_later_epoch_would_do(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "v")).await;
    let old = view(store, &space).await;
    let later = |view| Batch {
        view: Some(view),
        later: true,
        ..Batch::of([Write::put(entry("k"), "later")])
    };
    let mut seen = old;
    for _ in 0..3 {
        let new = applied(store, &space, stepping(Step::Era)).await.view;
        assert!(new.epoch > seen.epoch && new.generation == old.generation);
        for passed in [old, seen] {
            let refusal = refused(store, &space, later(passed)).await;
            assert_eq!(refusal, Refusal::Stale(new));
        }
        let next = applied(store, &space, stepping(Step::Epoch)).await.view;
        assert_eq!(next.epoch, new.epoch + 1);
        assert_eq!(applied(store, &space, later(new)).await.view, next);
        seen = next;
    }
    // What an era never was begun in is the first; it ends likewise.
    let fresh = self::space();
    let begun = applied(store, &fresh, stepping(Step::Era)).await.view;
    let never = View::default();
    assert_eq!(
        refused(store, &fresh, later(never)).await,
        Refusal::Stale(begun)
    );
}
