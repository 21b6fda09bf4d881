//! Pictures of a fleet, as text.

use std::{env, fs, path::Path, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    style::{Color, Modifier},
};
use serde_json::{Value, json};

use super::*;
use crate::cli::top::{
    figures::Figures,
    fleet::Replica,
    view::{Sort, View},
};

fn replica(address: &str, json: &Value) -> Replica {
    Replica {
        address: address.into(),
        told: Figures::read(&serde_json::to_vec(json).unwrap())
            .map(|figures| (figures, Duration::ZERO)),
        silent: None,
    }
}

/// Ten minutes of a replica under a load that comes and goes.
fn figures() -> Value {
    let points = |of: fn(f64) -> f64| (0..120).map(|at| of(f64::from(at))).collect::<Vec<_>>();
    json!({
        "replica": "10.0.0.1:50051", "version": "0.1.0", "backend": "redis",
        "time_ms": 1_795_651_402_000_u64, "start_time_ms": 1_795_639_882_000_u64, "step_ms": 5000,
        "health": [
            {"service": "riptide.persistence.v1.TenantService", "serving": true, "trouble": ""},
            {"service": "riptide.persistence.v1.CacheService", "serving": true, "trouble": ""},
            {"service": "riptide.persistence.v1.StateService", "serving": true, "trouble": ""},
            {"service": "store", "serving": true, "trouble": ""},
            {"service": "config", "serving": true, "trouble": ""},
            {"service": "checkpoints", "serving": true, "trouble": ""},
        ],
        "series": {
            "calls_per_second": points(|at| 6000.0 * (1.5 + (at / 12.0).sin())),
            "errors_per_second": points(|at| if (60.0..63.0).contains(&at) { 12.0 } else { 0.0 }),
            "hit_ratio": points(|at| 0.5 + 0.43 * (at / 119.0)),
            "near_hit_ratio": points(|at| 0.4 * (at / 119.0)),
            "p50_ms": points(|_| 0.2),
            "p99_ms": points(|at| 1.0 + (at % 17.0) / 10.0),
            "store_p99_ms": points(|at| 0.8 + (at % 13.0) / 10.0),
            "in_flight": points(|at| (at % 7.0).round()),
            "connections": points(|_| 40.0),
            "rss_bytes": points(|at| 4e7 + at * 1e5),
            "near_bytes": points(|at| at * 5e5),
        },
        "tenants": [
            {"tenant_id": "acme", "calls_per_second": 5120.0, "errors_per_second": 0.0, "throttled_per_second": 0.0,
             "hit_ratio": 0.934, "received_bytes_per_second": 512_000.0, "sent_bytes_per_second": 5_242_880.0,
             "quotas": [{"metric": "memory_bytes", "used": 76_021_760, "limit": 104_857_600},
                        {"metric": "cache_entries", "used": 5000, "limit": 100_000},
                        {"metric": "operations_per_minute", "used": 307_200, "limit": -1}]},
            {"tenant_id": "globex-corporation", "calls_per_second": 2011.0, "errors_per_second": 0.4, "throttled_per_second": 31.0,
             "hit_ratio": 0.71, "received_bytes_per_second": 90_000.0, "sent_bytes_per_second": 910_000.0,
             "quotas": [{"metric": "operations_per_minute", "used": 120_000, "limit": 120_000}]},
            {"tenant_id": "initech", "calls_per_second": 12.0, "hit_ratio": 1.0,
             "received_bytes_per_second": 1000.0, "sent_bytes_per_second": 20_000.0,
             "quotas": [{"metric": "seats", "used": 23, "limit": 25}]},
            {"tenant_id": "umbrella", "calls_per_second": 0.0, "hit_ratio": null,
             "received_bytes_per_second": 0.0, "sent_bytes_per_second": 0.0, "quotas": []},
            {"tenant_id": "other", "calls_per_second": 902.0, "hit_ratio": 0.5,
             "received_bytes_per_second": 40_000.0, "sent_bytes_per_second": 350_000.0, "quotas": []},
        ],
    })
}

fn fleet() -> Fleet {
    Fleet::of(&[replica("127.0.0.1:9464", &figures())])
}

fn drawn((width, height): (u16, u16), ink: Ink, view: &View, fleet: &Fleet) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame.area(), frame.buffer_mut(), ink, view, fleet))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn picture(size: (u16, u16), view: &View, fleet: &Fleet) -> String {
    text(&drawn(size, Ink::new(true, true), view, fleet))
}

/// The pictures are kept as they should be, in files that can be looked at.
#[track_caller]
fn kept(name: &str, picture: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/top/screen/frames")
        .join(name);
    if env::var_os("REGENERATE").is_some() {
        fs::write(&path, picture).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(
        picture, kept,
        "look at the new picture; where it is right: REGENERATE=1 cargo test --lib top::\n{picture}"
    );
}

/// A second replica, and a third that has never answered.
fn three() -> Fleet {
    let mut second = figures();
    second["version"] = json!("0.1.1");
    second["health"][3] =
        json!({"service": "store", "serving": false, "trouble": "connection refused"});
    let never = Replica {
        address: "10.0.0.3:9464".into(),
        told: None,
        silent: Some("no answer in time".into()),
    };
    Fleet::of(&[
        replica("10.0.0.1:9464", &figures()),
        replica("10.0.0.2:9464", &second),
        never,
    ])
}

#[test]
fn a_small_terminal_has_what_matters_most() {
    let view = View::default();
    kept("40x10.txt", &picture((40, 10), &view, &fleet()));
    kept("40x10-trouble.txt", &picture((40, 10), &view, &three()));
}

#[test]
fn a_usual_terminal_has_plots_and_the_selected_tenants_quotas() {
    let view = View {
        selected: Some("acme".into()),
        ..View::default()
    };
    kept("80x24.txt", &picture((80, 24), &view, &fleet()));
    let view = View {
        sort: Sort::Quota,
        paused: true,
        ..View::default()
    };
    kept("80x24-trouble.txt", &picture((80, 24), &view, &three()));
    let view = View {
        help: true,
        ..View::default()
    };
    kept("80x24-help.txt", &picture((80, 24), &view, &fleet()));
}

#[test]
fn a_large_terminal_has_more_plots_and_columns() {
    let view = View::default();
    kept("160x50.txt", &picture((160, 50), &view, &fleet()));
}

#[test]
fn without_unicode_there_is_ascii_alone() {
    let view = View::default();
    let text = text(&drawn((80, 24), Ink::new(false, false), &view, &three()));
    assert!(text.is_ascii(), "{text}");
    kept("80x24-ascii.txt", &text);
}

#[test]
fn without_colour_there_is_none_and_the_signs_stay() {
    for (coloured, selected) in [(true, None), (false, Some("acme".to_owned()))] {
        let view = View {
            selected,
            ..View::default()
        };
        let buffer = drawn((160, 50), Ink::new(coloured, true), &view, &three());
        let colours = buffer
            .content
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(colours.count() > 0, coloured);
        let failing = buffer
            .content
            .iter()
            .find(|cell| cell.symbol() == "✘")
            .unwrap();
        assert_eq!(failing.fg == Color::Red, coloured);
        assert!(failing.modifier.contains(Modifier::BOLD));
        let text = text(&buffer);
        assert!(
            text.contains("✘ store: at 10.0.0.2:9464: connection refused"),
            "{text}"
        );
        assert!(text.contains("100 %!"), "{text}");
    }
}

#[test]
fn no_size_and_no_figures_make_it_panic() {
    let hostile = json!({
        "replica": "\u{1b}]0;x\u{7}", "version": "\u{1b}[31m", "backend": "漢字漢字漢字", "time_ms": i64::MAX, "step_ms": 1,
        "start_time_ms": 1,
        "health": [{"service": "\u{1b}[2J", "serving": false, "trouble": "\r\n\u{9b}0m"}, {}],
        "series": {"calls_per_second": vec![f64::MAX; 720], "errors_per_second": [null, null], "hit_ratio": [1e300],
                   "p99_ms": [0, 0, 0], "store_p99_ms": []},
        "tenants": [
            {"tenant_id": "\u{1b}[31m漢字\u{202e}", "calls_per_second": f64::MAX, "errors_per_second": 1e-300, "hit_ratio": 1e300,
             "quotas": [{"metric": "漢字漢字漢字漢字漢字漢字漢字漢字", "used": f64::MAX, "limit": 1e-300},
                        {"metric": "\u{7}", "used": 0, "limit": 0}]},
            {},
        ],
    });
    let hostile = Fleet::of(&[replica("[::1]:9464", &hostile)]);
    let selected = hostile
        .tenants
        .last()
        .map(|tenant| tenant.tenant_id.clone());
    let views = [
        View {
            selected,
            ..View::default()
        },
        View {
            help: true,
            paused: true,
            reversed: true,
            ..View::default()
        },
    ];
    for fleet in [Fleet::default(), three(), hostile] {
        for view in &views {
            for (width, height) in (1..=130)
                .step_by(11)
                .flat_map(|w| (1..=45).map(move |h| (w, h)))
            {
                let buffer = drawn((width, height), Ink::new(true, true), view, &fleet);
                let controls = buffer
                    .content
                    .iter()
                    .filter(|cell| cell.symbol().contains(char::is_control));
                assert_eq!(controls.count(), 0, "{width}x{height}");
            }
            drawn((1, 1), Ink::new(false, false), view, &fleet);
            let mut empty = Buffer::empty(Rect::ZERO);
            draw(Rect::ZERO, &mut empty, Ink::new(true, true), view, &fleet);
            // Larger than what there is to draw on, as for a moment when it shrinks.
            let mut small = Buffer::empty(Rect::new(0, 0, 20, 5));
            draw(
                Rect::new(0, 0, 90, 40),
                &mut small,
                Ink::new(true, true),
                view,
                &fleet,
            );
        }
    }
}

#[test]
fn a_still_picture_has_every_tenant_and_no_keys() {
    let mut buffer = Buffer::empty(Rect::new(0, 0, 120, 40));
    draw_still(buffer.area, &mut buffer, Ink::new(false, true), &three());
    let text = text(&buffer);
    for shown in [
        "acme",
        "umbrella",
        "other",
        "2 of 3 replicas",
        "10.0.0.3:9464 does not answer: no answer in time",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains("quit"), "{text}");
    assert!(text.lines().all(|line| line.trim_end() == line));
}
