//! The log of a space. It does not know what the notes tell.

use riptide_persistence::store::{Limits, MAX_NOTE_BYTES, Mode, Notes, Position, Step};

use super::*;

/// A batch that carries a note.
fn noting(note: &str, writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch {
        note: Some(note.to_owned().into()),
        ..Batch::of(writes)
    }
}

async fn note(store: &Handle, space: &Space, note: &str) {
    applied(store, space, noting(note, [Write::put(entry("k"), "v")])).await;
}

async fn end(store: &Handle, space: &Space) -> Position {
    let Notes {
        position,
        notes,
        lost,
    } = store.notes(space, None, 1).await.unwrap();
    assert!(notes.is_empty() && !lost);
    position
}

/// The notes after a place, as texts.
async fn after(store: &Handle, space: &Space, position: &Position) -> Vec<String> {
    let found = store
        .notes(space, Some(position.clone()), 1000)
        .await
        .unwrap();
    assert!(!found.lost);
    let text = |note: &Bytes| String::from_utf8(note.to_vec()).unwrap();
    found.notes.iter().map(|noted| text(&noted.note)).collect()
}

pub async fn notes_come_in_the_order_of_their_commits(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    assert_eq!(after(store, &space, &start).await, [""; 0]);
    let written: Vec<String> = (0..50).map(|number| format!("note {number}")).collect();
    for text in &written {
        note(store, &space, text).await;
    }
    assert_eq!(after(store, &space, &start).await, written);
    assert_eq!(
        after(store, &space, &end(store, &space).await).await,
        [""; 0]
    );
    // A commit that carries none leaves none.
    write(store, &space, Write::put(entry("k"), "v")).await;
    note(store, &space, "last").await;
    assert_eq!(after(store, &space, &start).await.last().unwrap(), "last");
    assert_eq!(after(store, &space, &start).await.len(), 51);
}

pub async fn a_log_is_read_in_pieces_from_any_note(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    for number in 0..7 {
        note(store, &space, &number.to_string()).await;
    }
    let (mut position, mut pieces, mut places) = (start, Vec::new(), Vec::new());
    loop {
        let piece = store.notes(&space, Some(position), 3).await.unwrap();
        assert!(!piece.lost);
        position = piece.position;
        if piece.notes.is_empty() {
            break;
        }
        assert_eq!(piece.notes.last().unwrap().position, position);
        pieces.push(piece.notes.len());
        places.extend(piece.notes.into_iter().map(|noted| noted.position));
    }
    assert_eq!(pieces, [3, 3, 1]);
    for (number, place) in places.iter().enumerate() {
        let rest: Vec<_> = (number + 1..7).map(|number| number.to_string()).collect();
        assert_eq!(after(store, &space, place).await, rest);
    }
}

pub async fn only_what_changes_something_is_noted(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    let there = entry("there");
    let hidden = write(store, &space, Write::put(entry("hidden"), "v")).await;
    let each = |note: &str, writes: Vec<Write>| Batch {
        mode: Mode::Each,
        ..noting(note, writes)
    };
    applied(
        store,
        &space,
        noting("put", [Write::put(there.clone(), "v")]),
    )
    .await;
    applied(
        store,
        &space,
        noting("touch", [touch(there.clone(), Expiry::Never)]),
    )
    .await;
    applied(
        store,
        &space,
        noting("none: touch", [touch(entry("absent"), Expiry::Never)]),
    )
    .await;
    applied(
        store,
        &space,
        noting("none: check", [Write::check(there.clone(), Check::Present)]),
    )
    .await;
    applied(
        store,
        &space,
        noting("none: delete", [Write::delete(entry("absent"))]),
    )
    .await;
    let delete = Write::delete(entry("hidden")).above(hidden);
    applied(store, &space, noting("none: hidden", [delete])).await;
    applied(store, &space, noting("none: empty", [])).await;
    let conflict = Write::put(there.clone(), "v").when(Check::Absent);
    refused(store, &space, noting("none: refused", [conflict.clone()])).await;
    applied(store, &space, each("none: each", vec![conflict.clone()])).await;
    let some = vec![conflict, Write::put(entry("other"), "v")];
    applied(store, &space, each("some of each", some)).await;
    let limits = Limits {
        entries: Some(0),
        ..Limits::default()
    };
    let over = Batch {
        limits,
        ..each("none: over", vec![Write::put(entry("new"), "v")])
    };
    applied(store, &space, over).await;
    applied(store, &space, noting("delete", [Write::delete(there)])).await;
    let step = Batch {
        step: Some(Step::Epoch),
        ..noting("step", [])
    };
    applied(store, &space, step).await;
    let flush = Batch {
        step: Some(Step::Generation),
        ..noting("flush", [])
    };
    applied(store, &space, flush).await;
    assert_eq!(
        after(store, &space, &start).await,
        ["put", "touch", "some of each", "delete", "step", "flush"]
    );
}

pub async fn logs_of_spaces_do_not_mix(store: &Handle) {
    let (one, two) = (space(), space());
    let places = [end(store, &one).await, end(store, &two).await];
    note(store, &one, "one").await;
    note(store, &two, "two").await;
    assert_eq!(after(store, &one, &places[0]).await, ["one"]);
    assert_eq!(after(store, &two, &places[1]).await, ["two"]);
    let foreign = store.notes(&two, Some(places[0].clone()), 1).await.unwrap();
    assert!(foreign.lost && foreign.notes.is_empty());
}

pub async fn an_unknown_place_is_lost(store: &Handle) {
    let space = space();
    note(store, &space, "before").await;
    let real = end(store, &space).await.0;
    let first = if real.starts_with('2') { "3" } else { "2" };
    let changed = format!("{first}{}", &real[1..]);
    for text in [
        "",
        "x",
        "-@",
        "0-0@00",
        "(0-0@",
        "a-1",
        &changed,
        &format!("{real}0"),
    ] {
        let found = store
            .notes(&space, Some(Position(text.into())), 10)
            .await
            .unwrap();
        assert!(found.lost && found.notes.is_empty(), "{text:?}: {found:?}");
        note(store, &space, text).await;
        assert_eq!(
            after(store, &space, &found.position).await,
            [text],
            "the new place goes on"
        );
    }
}

pub async fn a_log_that_was_cut_says_so(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    let text = "n".repeat(MAX_NOTE_BYTES);
    let batches = 3000;
    let mut first = None;
    for number in 0..batches {
        note(store, &space, &text).await;
        if number == 0 {
            first = Some(store.notes(&space, Some(start.clone()), 1).await.unwrap());
        }
    }
    let first = first.unwrap();
    assert_eq!((first.lost, first.notes.len()), (false, 1));
    for cut in [start, first.position] {
        let found = store.notes(&space, Some(cut), 10).await.unwrap();
        assert!(found.lost, "12 MB of notes are too many to keep");
        note(store, &space, "next").await;
        assert_eq!(after(store, &space, &found.position).await, ["next"]);
    }
}

pub async fn no_note_is_lost_among_many(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    let writers = (0..8).map(|writer| {
        let (store, space) = (store.clone(), space.clone());
        tokio::spawn(async move {
            for number in 0..25 {
                let key = entry(format!("{writer} {number}"));
                let batch = noting(&format!("{writer} {number}"), [Write::put(key, "v")]);
                applied(&store, &space, batch).await;
            }
        })
    });
    let reading = async {
        let (mut position, mut seen) = (start, Vec::new());
        while seen.len() < 200 {
            let piece = store.notes(&space, Some(position), 7).await.unwrap();
            assert!(!piece.lost);
            position = piece.position;
            // Nothing in a store of this process waits.
            tokio::task::yield_now().await;
            for noted in piece.notes {
                // What is noted is there for whoever reads then.
                let there = record(store, &space, entry(&noted.note)).await;
                assert!(there.is_some(), "{noted:?}");
                seen.push(String::from_utf8(noted.note.to_vec()).unwrap());
            }
        }
        seen
    };
    let (seen, _) = tokio::join!(reading, futures::future::join_all(writers));
    for writer in 0..8 {
        let own: Vec<_> = seen
            .iter()
            .filter(|note| note.starts_with(&format!("{writer} ")))
            .collect();
        let expected: Vec<_> = (0..25).map(|number| format!("{writer} {number}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
}

pub async fn a_log_ends_with_its_space(store: &Handle) {
    let space = space();
    let start = end(store, &space).await;
    note(store, &space, "before").await;
    let remove = Batch {
        step: Some(Step::Remove),
        ..noting("never told", [])
    };
    applied(store, &space, remove).await;
    let found = store.notes(&space, Some(start), 10).await.unwrap();
    assert!(found.lost && found.notes.is_empty());
}

pub async fn misuse_of_the_log_is_named(store: &Handle) {
    let space = space();
    let place = end(store, &space).await;
    for limit in [0, 1001] {
        let error = store.notes(&space, Some(place.clone()), limit).await;
        assert!(matches!(
            error,
            Err(riptide_persistence::store::Error::Misuse(_))
        ));
    }
    let long = noting(
        &"n".repeat(MAX_NOTE_BYTES + 1),
        [Write::put(entry("k"), "v")],
    );
    let error = store.commit(&space, long).await;
    assert!(matches!(
        error,
        Err(riptide_persistence::store::Error::Misuse(_))
    ));
    assert_eq!(value(store, &space, entry("k")).await, None);
    assert_eq!(after(store, &space, &place).await, [""; 0]);
}
