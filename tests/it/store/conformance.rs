//! One case for each promise of the store's port, on every backend. It does not
//! know which backend it runs on.
//!
//! Cases use spaces and paths of their own, so that several could share a store.

mod accounting;
mod batches;
mod checks;
mod concurrency;
mod entries;
mod expiry;
mod feed;
mod lease;
mod limits;
mod lingering;
mod listing;
mod log;
mod meters;
pub mod pins;
mod reclaim;
mod renewal;
mod steps;
mod succession;
mod tally;
pub mod watch;

use bytes::Bytes;
use riptide_persistence::store::{
    Action, Applied, Batch, Check, Commit, Expiry, Handle, Incarnation, Key, Outcome, Record,
    Refusal, Space, Table, Usage, View, Write,
};

macro_rules! cases {
    ($backend:ident { $($module:ident: $($case:ident)*;)* }) => {
        mod $backend {
            $(mod $module {
                $(#[tokio::test]
                async fn $case() {
                    let stage = crate::store::$backend().await;
                    crate::store::conformance::$module::$case(&stage.store).await;
                    stage.store.close().await.unwrap();
                })*
            })*
        }
    };
}

crate::store::on_every_backend!(cases, {
    checks:
        absent present_and_version_checks
        a_check_alone_decides_a_batch
        a_conflict_names_the_write_and_the_version_found
        an_expired_record_is_absent_to_checks
        a_floor_hides_old_records_from_a_write
        versions_grow_and_are_never_zero
        outcomes_tell_what_was_and_what_is;
    batches:
        a_batch_applied_whole_stands_or_falls
        a_batch_of_single_writes_decides_each
        single_writes_see_those_before_them
        misuse_is_named_and_writes_nothing
        an_empty_batch_is_applied;
    entries:
        odd_bytes_in_paths_are_separate_records
        long_paths_are_kept
        a_large_value_comes_back
        a_thousand_writes_are_one_commit
        no_more_writes_are_one_commit_than_allowed
        an_empty_value_is_a_value
        tables_do_not_mix
        spaces_do_not_mix
        a_read_sees_one_moment;
    expiry:
        a_record_is_absent_when_its_time_is_over
        touch_keeps_the_version
        touch_of_the_absent_does_nothing
        a_put_without_expiry_ends_an_expiry
        the_longest_expiry_is_cut
        an_ended_record_counts_no_more
        a_replaced_record_counts_once;
    lingering:
        an_ended_record_shows_only_where_it_is_asked_for
        an_ended_record_is_absent_to_writes
        a_deleted_record_lingers_no_more
        what_lingered_leaves_with_its_bucket
        touch_says_anew_how_long_a_record_lingers
        the_longest_lingering_is_cut
        a_record_without_a_bucket_lingers_too
        lingering_from_no_time_is_misuse
        a_lease_of_a_refill_ends_with_its_generation;
    renewal:
        a_record_is_renewed_as_it_says
        a_record_is_renewed_no_longer_than_it_says
        what_has_come_to_its_end_is_not_renewed
        checks_decide_what_is_shown
        a_taken_record_is_shown_as_it_was
        only_a_whole_batch_shows
        passing_records_are_listed_while_they_last;
    limits:
        the_limit_itself_is_allowed
        one_more_is_refused
        what_does_not_grow_is_never_refused
        single_writes_are_limited_each
        bytes_are_counted_as_charged
        ended_records_make_room
        orphans_count_half
        a_refusal_writes_nothing;
    steps:
        the_first_commit_makes_epoch_one
        a_stale_view_is_refused
        a_later_epoch_will_do_where_the_batch_says_so
        an_era_ends_what_a_later_epoch_would_do
        an_epoch_step_moves_the_epoch
        a_generation_step_hides_every_entry
        a_generation_step_keeps_control_records
        a_removed_space_stays_gone;
    succession:
        a_fenced_space_is_read_and_not_written
        what_is_due_when_a_fenced_space_goes_keeps_the_fence
        a_removed_space_shows_a_view_of_its_own
        versions_go_on_above_what_is_inherited
        meters_go_on_from_what_is_inherited
        borders_are_told_as_they_were_inherited
        misuse_of_inheritance_is_named;
    reclaim:
        orphans_are_removed_in_bounded_steps
        orphans_of_a_removed_space_are_all_records
        records_below_a_version_are_removed_and_uncounted
        reclaiming_twice_uncounts_once
        reclaiming_nothing_ends_at_once;
    listing:
        ordered_tables_come_in_the_order_of_bytes
        pages_follow_each_other
        a_prefix_confines_a_listing
        values_are_cut
        ended_records_are_not_listed
        a_listing_is_stable_under_writes
        every_entry_is_listed
        entries_of_a_past_generation_are_not_listed
        odd_prefixes_are_plain_bytes;
    concurrency:
        one_writer_wins_each_version
        one_creator_wins
        a_limit_holds_under_many_writers
        every_acknowledged_commit_is_read;
    feed:
        announced_commits_come_in_order
        a_position_can_be_resumed
        an_unknown_position_is_lost
        other_tables_are_not_announced
        a_waiting_reader_is_woken
        refused_commits_are_not_announced;
    log:
        notes_come_in_the_order_of_their_commits
        a_log_is_read_in_pieces_from_any_note
        only_what_changes_something_is_noted
        logs_of_spaces_do_not_mix
        an_unknown_place_is_lost
        a_log_that_was_cut_says_so
        no_note_is_lost_among_many
        a_log_ends_with_its_space
        misuse_of_the_log_is_named;
    accounting:
        usage_follows_each_write
        unmetered_tables_do_not_count
        counters_agree_after_random_operations
        what_ended_is_counted_once
        what_was_flushed_or_reclaimed_did_not_end
        the_store_is_well
        the_store_tells_what_it_holds
        a_closed_store_says_so;
    tally:
        amounts_are_added_and_shown
        rows_come_in_the_order_asked_for
        a_stamp_that_is_not_above_the_last_adds_nothing
        what_was_told_once_adds_nothing_again
        a_record_that_must_be_absent_bars_a_tally
        a_limit_refuses_all_of_a_tally
        counters_are_never_negative
        large_counts_are_exact
        the_largest_tally_is_taken
        rows_end_when_they_are_said_to
        names_that_are_remembered_are_recalled
        names_are_recalled_beside_tallies
        a_name_alone_is_remembered
        misuse_of_recalls_is_named
        no_amount_is_lost_among_many
        exactly_the_limit_is_admitted_among_many
        misuse_of_tallies_adds_nothing;
    lease:
        what_is_free_is_given
        no_fewer_than_the_least_are_given
        a_share_of_the_free_is_given
        a_lease_ends_with_a_slot
        permits_are_free_when_it_was_told
        the_wait_is_for_as_many_as_are_needed
        unused_permits_are_free_again
        used_permits_count_from_when_it_was_told
        leases_of_one_slot_are_settled_apart
        forced_permits_count_beyond_the_limit
        the_limit_is_the_one_asked_with
        asking_takes_nothing
        many_leasers_share_a_limit
        a_sliding_second_never_holds_more
        misuse_of_leases_takes_nothing
        a_removed_space_leases_and_adds_nothing;
    meters:
        a_space_never_written_has_none
        a_batch_moves_the_meters_if_it_is_applied
        bytes_held_add_up_over_time
        tenants_are_held_and_control_records_are_not
        a_record_is_held_to_the_end_of_its_bucket
        a_flush_ends_what_is_held_and_no_meter
        what_is_reclaimed_is_held_no_more
        meters_end_with_their_space
        the_first_move_of_a_unit_opens_it
        no_metered_operation_is_lost_among_many;
    pins:
        a_pinned_space_is_read_as_it_was
        a_pin_counts_what_it_yields
        what_is_flushed_and_reclaimed_stays_pinned
        what_is_swept_stays_pinned
        what_has_ended_is_not_pinned
        a_touched_record_has_its_former_end
        what_is_renewed_and_taken_stays_pinned
        a_fenced_space_can_be_pinned
        one_pin_at_a_time
        a_removed_space_has_no_pin
        a_pin_that_is_not_read_is_lost
        a_pin_that_is_read_lasts
        large_values_are_pinned_whole
        many_spaces_are_read_in_one_walk
        random_writes_beside_a_walk_change_nothing
        many_writers_beside_a_walk_change_nothing
        a_space_never_written_can_be_pinned
        misuse_of_pins_is_named;
    watch:
        without_a_watcher_nothing_is_vouched_for;
});

macro_rules! watched {
    ($backend:ident { $($case:ident)* }) => {
        mod $backend {
            $(#[tokio::test]
            async fn $case() {
                let stage = crate::store::$backend().await;
                crate::store::conformance::watch::$case(&stage).await;
                stage.other.close().await.unwrap();
                stage.store.close().await.unwrap();
            })*
        }
    };
}

crate::store::on_every_watched_backend!(watched, {
    a_watched_read_is_a_read
    a_store_tells_whether_it_vouches
    a_change_by_another_handle_is_told
    a_change_by_this_handle_is_told
    what_was_absent_is_told_when_it_is_put
    a_delete_and_a_touch_are_told
    every_record_of_a_batch_is_told
    whoever_is_told_reads_the_change
    a_flush_is_told_by_what_is_written_with_it
    a_refused_commit_takes_no_promise_back
    expiry_is_no_change
    what_is_kept_is_never_too_old
    what_is_reclaimed_is_told
    a_store_that_is_closed_vouches_for_nothing
});

/// A space nobody else uses.
fn space() -> Space {
    Space::tenant(Incarnation::random())
}

fn entry(path: impl AsRef<[u8]>) -> Key {
    key(Table::Entry, path)
}

fn key(table: Table, path: impl AsRef<[u8]>) -> Key {
    Key::new(table, Bytes::copy_from_slice(path.as_ref()))
}

/// A put of a record that ends after so many milliseconds.
fn ending(key: Key, value: impl Into<Bytes>, ms: u64) -> Write {
    Write::put(key, value).expiring(Expiry::AfterMs(ms))
}

fn touch(key: Key, expiry: Expiry) -> Write {
    Write::new(key, Check::Any, Action::Touch(expiry))
}

async fn applied(store: &Handle, space: &Space, batch: Batch) -> Applied {
    match store.commit(space, batch).await.unwrap() {
        Commit::Applied(applied) => applied,
        Commit::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

async fn refused(store: &Handle, space: &Space, batch: Batch) -> Refusal {
    match store.commit(space, batch).await.unwrap() {
        Commit::Refused(refusal) => refusal,
        Commit::Applied(applied) => panic!("applied: {applied:?}"),
    }
}

/// Applies one write; the version it gave.
async fn write(store: &Handle, space: &Space, write: Write) -> u64 {
    let applied = applied(store, space, Batch::of([write])).await;
    match applied.outcomes.as_slice() {
        [Outcome::Done { version, .. }] => *version,
        outcomes => panic!("{outcomes:?}"),
    }
}

async fn view(store: &Handle, space: &Space) -> View {
    store.read(space, 0, &[]).await.unwrap().view
}

/// A record in the space's present generation.
async fn record(store: &Handle, space: &Space, key: Key) -> Option<Record> {
    let generation = view(store, space).await.generation;
    let read = store.read(space, generation, &[key]).await.unwrap();
    assert_eq!(read.records.len(), 1);
    read.records.into_iter().next().unwrap()
}

async fn value(store: &Handle, space: &Space, key: Key) -> Option<Bytes> {
    record(store, space, key).await.map(|record| record.value)
}

/// Entries and bytes counted.
async fn counted(store: &Handle, space: &Space) -> (u64, u64) {
    let Usage {
        entries,
        bytes,
        exact,
        ..
    } = store.usage(space).await.unwrap();
    assert!(exact);
    (entries, bytes)
}

async fn assert_agrees(store: &Handle, space: &Space) {
    let audit = store.audit(space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
}

/// Waits until the store's clock has passed a time by a bucket's width and then
/// some: its records are over and counted no more.
async fn wait_past(store: &Handle, ms: u64) {
    while store.now_ms() <= ms + 75 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
