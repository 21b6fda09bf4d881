//! Billing periods: the calendar's months, in UTC. It does not know what is
//! billed.

use std::fmt;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A month in UTC. Reads and writes as `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Period {
    year: i16,
    month: i8,
}

impl Period {
    /// The period that a moment lies in, in milliseconds since 1970.
    pub fn of(at_ms: u64) -> Self {
        let at = i64::try_from(at_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or(Timestamp::MAX);
        let date = at.to_zoned(TimeZone::UTC).date();
        Self {
            year: date.year(),
            month: date.month(),
        }
    }

    /// Reads `2026-11`: a year from 1970 to 9998 and a month.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits = |text: &str, count| {
            (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
        };
        digits(year, 4)?;
        digits(month, 2)?;
        let (year, month) = (year.parse().ok()?, month.parse().ok()?);
        ((1970..=9998).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// Its number among all months; never 0, and the next one's is 1 more.
    pub fn number(self) -> u32 {
        let months = i32::from(self.year) * 12 + i32::from(self.month);
        u32::try_from(months).unwrap_or(0)
    }

    /// When it begins, in milliseconds since 1970.
    pub fn start_ms(self) -> u64 {
        let start = Date::new(self.year, self.month, 1)
            .ok()
            .and_then(|date| date.to_zoned(TimeZone::UTC).ok());
        start.map_or(0, |start| {
            u64::try_from(start.timestamp().as_millisecond()).unwrap_or(0)
        })
    }

    /// When it ends, and the next begins.
    pub fn end_ms(self) -> u64 {
        self.next().start_ms()
    }

    /// Its length in milliseconds.
    pub fn ms(self) -> u64 {
        self.end_ms() - self.start_ms()
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12 => Self {
                year: self.year.saturating_add(1),
                month: 1,
            },
            month => Self {
                month: month + 1,
                ..self
            },
        }
    }

    /// The one before it.
    #[must_use]
    pub fn previous(self) -> Self {
        match self.month {
            1 => Self {
                year: self.year.saturating_sub(1),
                month: 12,
            },
            month => Self {
                month: month - 1,
                ..self
            },
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a period"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_month_in_utc() {
        for (text, start_ms, end_ms) in [
            ("1970-01", 0, 2_678_400_000),
            ("2024-02", 1_706_745_600_000, 1_709_251_200_000),
            ("2026-11", 1_793_491_200_000, 1_796_083_200_000),
            ("2026-12", 1_796_083_200_000, 1_798_761_600_000),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!(period.to_string(), text);
            assert_eq!(
                (period.start_ms(), period.end_ms()),
                (start_ms, end_ms),
                "{text}"
            );
            assert_eq!(Period::of(start_ms), period);
            assert_eq!(Period::of(end_ms - 1), period);
            assert_eq!(Period::of(end_ms), period.next());
            assert_eq!(period.next().previous(), period);
        }
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "2026-1",
            "26-11",
            "2026-11-01",
            "+026-11",
            "9999-01",
            "1969-12",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
        assert_eq!(Period::of(u64::MAX).to_string(), "9999-12");
    }
}
