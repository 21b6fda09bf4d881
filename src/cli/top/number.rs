//! Numbers in few columns: rates, ratios, times, sizes. It does not know what is
//! counted, and takes any number there is.

/// What a number is of, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// So many a second, or so many at all.
    Count,
    /// A part of a whole, from 0 to 1.
    Ratio,
    /// Milliseconds.
    Ms,
    Bytes,
}

impl Unit {
    /// A number in at most eight columns; a dash where there is none.
    pub(super) fn text(self, number: Option<f64>) -> String {
        let Some(number) = number.filter(|number| number.is_finite()) else {
            return "-".to_owned();
        };
        match self {
            Self::Count => scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"]),
            Self::Bytes => scaled(
                number,
                1024.0,
                &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
            ),
            Self::Ratio => percent(number),
            Self::Ms => ms(number),
        }
    }
}

/// With three digits in the largest unit that it fills.
fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let most = units.len().saturating_sub(1);
    let (mut number, mut unit) = (number.max(0.0), 0);
    // What would be written as 1000 is 1.00 of the next.
    while unit < most && number >= step - 0.5 {
        number /= step;
        unit += 1;
    }
    let unit_name = units.get(unit).copied().unwrap_or_default();
    if number >= step {
        return format!(">{}{unit_name}", step - 1.0);
    }
    format!("{}{unit_name}", digits(number))
}

/// With three digits, and no more decimals than say something.
fn digits(number: f64) -> String {
    let decimals: usize = match number {
        n if n >= 99.95 => 0,
        n if n >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{number:.decimals$}");
    if number > 0.0 && !text.contains(|digit: char| digit.is_ascii_digit() && digit != '0') {
        return "<0.01".to_owned();
    }
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Rounded down, so that 100 % is all and nothing less.
fn percent(ratio: f64) -> String {
    let tenths = (ratio.clamp(0.0, 999.9) * 1000.0 + 1e-9).floor();
    match tenths % 10.0 == 0.0 || tenths >= 1000.0 {
        true => format!("{:.0} %", (tenths / 10.0).floor()),
        false => format!("{:.1} %", tenths / 10.0),
    }
}

fn ms(ms: f64) -> String {
    let ms = ms.max(0.0);
    match ms {
        ms if ms < 999.5 => format!("{} ms", digits(ms)),
        ms if ms < 99_950.0 => format!("{} s", digits(ms / 1000.0)),
        ms if ms < 5_999_500.0 => format!("{} min", digits(ms / 60_000.0)),
        _ => ">99 min".to_owned(),
    }
}

/// A span in its two largest units, such as `3d 4h`.
pub(super) fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let (large, small) = match (days, hours, minutes) {
        (0, 0, 0) => return format!("{seconds}s"),
        (0, 0, minutes) => (format!("{minutes}m"), (seconds % 60, 's')),
        (0, hours, minutes) => (format!("{hours}h"), (minutes, 'm')),
        (days, hours, _) => (format!("{days}d"), (hours, 'h')),
    };
    match small {
        (0, _) => large,
        (small, unit) => format!("{large} {small}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_say_enough() {
        let count = |number| Unit::Count.text(Some(number));
        let cases = [
            (0.0, "0"),
            (0.001, "<0.01"),
            (0.25, "0.25"),
            (1.0, "1"),
            (12.54, "12.5"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1k"),
            (12_345.0, "12.3k"),
            (1e6, "1M"),
            (1e300, ">999E"),
            (f64::MAX, ">999E"),
            (-3.0, "0"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(Unit::Bytes.text(Some(1536.0)), "1.5 KiB");
        assert_eq!(Unit::Bytes.text(Some(1023.9)), "1 KiB");
        assert_eq!(Unit::Bytes.text(Some(f64::MAX)), ">1023 EiB");
        assert_eq!(Unit::Ms.text(Some(0.421)), "0.42 ms");
        assert_eq!(Unit::Ms.text(Some(1240.0)), "1.24 s");
        assert_eq!(Unit::Ms.text(Some(600_000.0)), "10 min");
        assert_eq!(Unit::Ms.text(Some(1e300)), ">99 min");
    }

    #[test]
    fn all_is_all_and_nothing_less() {
        let ratio = |number| Unit::Ratio.text(Some(number));
        let cases = [
            (1.0, "100 %"),
            (0.99999, "99.9 %"),
            (0.931, "93.1 %"),
            (0.57, "57 %"),
            (0.0, "0 %"),
            (1.32, "132 %"),
            (1e300, "99990 %"),
        ];
        for (number, text) in cases {
            assert_eq!(ratio(number), text);
        }
    }

    #[test]
    fn what_there_is_not_is_a_dash() {
        for unit in [Unit::Count, Unit::Ratio, Unit::Ms, Unit::Bytes] {
            for number in [None, Some(f64::NAN), Some(f64::INFINITY)] {
                assert_eq!(unit.text(number), "-");
            }
        }
    }

    #[test]
    fn spans_have_two_units() {
        let cases = [
            (-5, "0s"),
            (42_000, "42s"),
            (61_000, "1m 1s"),
            (11_520_000, "3h 12m"),
            (273_600_000, "3d 4h"),
            (600_000, "10m"),
            (i64::MAX, "106751991167d 7h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }
}
