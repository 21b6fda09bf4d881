//! Amounts for eyes: counts, bytes, spans, GiB-hours, money. Integers all the
//! way; it does not know where an amount comes from.

use std::time::Duration;

/// What a GiB held for an hour comes to.
const GIB_HOUR: i128 = (1 << 30) * 3600;

/// An exact number with its thousands apart.
pub(super) fn count(number: i64) -> String {
    grouped(i128::from(number))
}

fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that they fill, such as `1.5 GiB`.
pub(super) fn bytes(bytes: i64) -> String {
    const UNITS: [(&str, i128); 6] = [
        ("EiB", 1 << 60),
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let exact = i128::from(bytes);
    match UNITS.iter().find(|(_, size)| exact.abs() >= *size) {
        Some((unit, size)) => format!("{} {unit}", ratio(exact, *size, 1)),
        None => format!("{bytes} B"),
    }
}

/// A quotient with at most so many decimals, rounded half up; what is not
/// nothing is not shown as nothing.
fn ratio(part: i128, whole: i128, decimals: u32) -> String {
    let scale = 10_i128.pow(decimals);
    let scaled = (part.abs() * scale * 2 + whole) / (whole * 2);
    let (sign, less) = (
        if part < 0 { "-" } else { "" },
        if scaled == 0 && part != 0 { "<" } else { "" },
    );
    let scaled = if less.is_empty() { scaled } else { 1 };
    let fraction = format!("{:0width$}", scaled % scale, width = decimals as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{less}{sign}{}{point}{fraction}", grouped(scaled / scale))
}

/// Money from its millionths: exact, with two decimals at least.
pub(super) fn money(micros: i64) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let fraction = format!("{:06}", micros % 1_000_000);
    let (cents, rest) = fraction.split_at(2);
    let rest = rest.trim_end_matches('0');
    format!(
        "{sign}{}.{cents}{rest}",
        grouped((micros / 1_000_000).into())
    )
}

/// Milliseconds in whole units, such as `3days 4h`.
pub(super) fn span(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let span = Duration::from_millis(ms.unsigned_abs());
    format!("{sign}{}", humantime::format_duration(span))
}

/// A span of a message.
pub(super) fn span_of(span: &prost_types::Duration) -> String {
    Duration::try_from(*span).map_or_else(
        |_| span.to_string(),
        |span| humantime::format_duration(span).to_string(),
    )
}

/// What a metric came to, in the unit that its name tells: bytes, GiB-hours, a
/// span of time, else a count.
pub(super) fn quantity(metric: &str, amount: i64) -> String {
    if metric.ends_with("_byte_seconds") {
        format!("{} GiB-hours", ratio(amount.into(), GIB_HOUR, 3))
    } else if metric.ends_with("_bytes") || metric.starts_with("bytes_") {
        bytes(amount)
    } else if metric.ends_with("_ms") || metric == BASE_FEE {
        span(amount)
    } else {
        count(amount)
    }
}

/// The line of a statement that is owed for time alone.
const BASE_FEE: &str = "base_fee";

/// What a price is for.
pub(super) fn unit(metric: &str, unit: i64) -> String {
    match (metric, unit) {
        (BASE_FEE, _) => "period".to_owned(),
        _ if metric.ends_with("_byte_seconds") && i128::from(unit) == GIB_HOUR => {
            "GiB-hour".to_owned()
        }
        _ => quantity(metric, unit),
    }
}

/// A limit, or what is left of one.
pub(super) fn limit(metric: &str, limit: i64) -> String {
    match limit {
        -1 => "unlimited".to_owned(),
        limit => quantity(metric, limit),
    }
}

/// How much of a limit is used, rounded down; nothing where there is none.
pub(super) fn percent(used: i64, limit: i64) -> String {
    match limit {
        ..=0 => String::new(),
        limit => format!("{} %", i128::from(used) * 100 / i128::from(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact() {
        for (micros, text) in [
            (0, "0.00"),
            (1, "0.000001"),
            (10_000, "0.01"),
            (12_345_678, "12.345678"),
            (12_300_000, "12.30"),
            (1_234_567_000_000, "1,234,567.00"),
            (-1_500_000, "-1.50"),
            (i64::MAX, "9,223,372,036,854.775807"),
            (i64::MIN, "-9,223,372,036,854.775808"),
        ] {
            assert_eq!(money(micros), text, "{micros}");
        }
    }

    #[test]
    fn amounts_are_told_in_units_that_a_person_knows() {
        for (metric, amount, text) in [
            ("memory_bytes", 0, "0 B"),
            ("memory_bytes", 1023, "1023 B"),
            ("memory_bytes", 1536, "1.5 KiB"),
            ("memory_bytes", (2 << 30) + 1, "2 GiB"),
            ("bytes_in", i64::MAX, "8 EiB"),
            ("data_transfer_bytes", -1024, "-1 KiB"),
            ("memory_byte_seconds", 3_865_470_566_400, "1 GiB-hours"),
            ("memory_byte_seconds", 5_798_205_849_600, "1.5 GiB-hours"),
            ("storage_byte_seconds", 1, "<0.001 GiB-hours"),
            ("storage_byte_seconds", 0, "0 GiB-hours"),
            ("compute_ms", 3_661_500, "1h 1m 1s 500ms"),
            ("base_fee", 86_400_000, "1day"),
            ("operations", 1_234_567, "1,234,567"),
            ("pages_rendered", 999, "999"),
            ("pages_rendered", -1000, "-1,000"),
        ] {
            assert_eq!(quantity(metric, amount), text, "{metric} {amount}");
        }
        assert_eq!(unit("memory_byte_seconds", 3_865_470_566_400), "GiB-hour");
        assert_eq!(unit("base_fee", 2_592_000_000), "period");
        assert_eq!(unit("operations", 1_000_000), "1,000,000");
        assert_eq!(limit("cache_entries", -1), "unlimited");
        assert_eq!(limit("memory_bytes", 1 << 30), "1 GiB");
        let percents = [(0, 0), (5, 0), (5, -1), (1, 3), (7, 2), (i64::MAX, 1)];
        assert_eq!(
            percents.map(|(used, limit)| percent(used, limit)),
            ["", "", "", "33 %", "350 %", "922337203685477580700 %"]
        );
    }
}
