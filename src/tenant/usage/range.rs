//! Which points of usage are asked for: a unit of time, from when and until when.
//! It does not know what was used.

use crate::{
    error::{Result, Violations},
    store::Unit,
};

/// Points in one answer.
const MAX_POINTS: u64 = 3000;

/// Points where no start is named.
const USUAL_POINTS: u64 = 60;

/// How far a caller's clock may be ahead.
const AHEAD_MS: u64 = 5 * 60 * 1000;

/// Which points are asked for.
#[derive(Debug, Default)]
pub struct Range {
    /// The unit of time; `None` means no points.
    pub unit: Option<Unit>,
    /// The first point is the one this lies in; `None` means 60 units before the
    /// end, as far as points are kept.
    pub start_ms: Option<u64>,
    /// The last point is the one before this, or the one this lies in; `None`
    /// means now.
    pub end_ms: Option<u64>,
    /// What was found wrong with the request before it came here.
    pub violations: Violations,
}

impl Range {
    /// The unit, and when each of the points begins, oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid) with all that is wrong.
    pub(super) fn units(mut self, now_ms: u64) -> Result<Option<(Unit, Vec<u64>)>> {
        let Some(unit) = self.unit else {
            for (field, time) in [("start_time", self.start_ms), ("end_time", self.end_ms)] {
                let unset = "must be unset where granularity is unset: no points are asked for";
                self.violations.require(time.is_none(), field, unset);
            }
            self.violations.check()?;
            return Ok(None);
        };
        let unit_ms = unit.ms();
        let present_ms = unit.start_ms(now_ms);
        let oldest_ms = present_ms.saturating_sub((unit.kept() - 1) * unit_ms);
        let end_ms = self.end_ms.unwrap_or(now_ms);
        if end_ms > now_ms.saturating_add(AHEAD_MS) {
            let ahead = "more than 5 minutes ahead of the store's clock";
            self.violations.add("end_time", ahead);
        }
        if end_ms <= oldest_ms && self.end_ms.is_some() {
            self.violations.add("end_time", too_old(unit));
        }
        if let Some(start_ms) = self.start_ms {
            if start_ms > now_ms {
                self.violations.add("start_time", "in the future");
            } else if start_ms < oldest_ms {
                self.violations.add("start_time", too_old(unit));
            }
            if self.end_ms.is_some_and(|end_ms| start_ms >= end_ms) {
                self.violations.add("start_time", "must be before end_time");
            } else if end_ms.saturating_sub(start_ms).div_ceil(unit_ms) > MAX_POINTS {
                self.violations.add(
                    "start_time",
                    format!("more than {MAX_POINTS} points lie until end_time"),
                );
            }
        }
        self.violations.check()?;
        let last_ms = match self.end_ms {
            Some(end_ms) => unit.start_ms(end_ms.saturating_sub(1)).min(present_ms),
            None => present_ms,
        };
        let usual_ms = last_ms.saturating_sub((USUAL_POINTS - 1) * unit_ms);
        let first_ms = unit
            .start_ms(self.start_ms.unwrap_or(usual_ms))
            .max(oldest_ms);
        let points = (first_ms..=last_ms).step_by(usize::try_from(unit_ms).unwrap_or(usize::MAX));
        Ok(Some((unit, points.collect())))
    }
}

fn too_old(unit: Unit) -> String {
    let (name, kept) = match unit {
        Unit::Minute => ("minute", "2 days"),
        Unit::Hour => ("hour", "60 days"),
        Unit::Day => ("day", "2 years"),
    };
    format!("too old: points of a {name} are kept for {kept}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::Error;

    const MINUTE: u64 = 60_000;
    const DAY: u64 = 86_400_000;
    /// 30 seconds after a full minute.
    const NOW: u64 = 1_795_521_630_000;
    const FULL: u64 = NOW - 30_000;

    fn range(unit: Option<Unit>, start_ms: Option<u64>, end_ms: Option<u64>) -> Range {
        Range {
            unit,
            start_ms,
            end_ms,
            violations: Violations::default(),
        }
    }

    #[test]
    fn points_are_the_units_that_the_range_touches() {
        for (start_ms, end_ms, first, last) in [
            (None, None, FULL - 59 * MINUTE, FULL),
            (None, Some(FULL), FULL - 60 * MINUTE, FULL - MINUTE),
            (
                Some(FULL - MINUTE),
                Some(FULL),
                FULL - MINUTE,
                FULL - MINUTE,
            ),
            (Some(FULL - 1), Some(FULL + 1), FULL - MINUTE, FULL),
            (Some(FULL), None, FULL, FULL),
            (Some(NOW), None, FULL, FULL),
            (Some(FULL), Some(NOW + 4 * MINUTE), FULL, FULL),
            (Some(FULL - 2879 * MINUTE), None, FULL - 2879 * MINUTE, FULL),
            (
                None,
                Some(FULL - 2870 * MINUTE),
                FULL - 2879 * MINUTE,
                FULL - 2871 * MINUTE,
            ),
        ] {
            let case = format!("{start_ms:?} {end_ms:?}");
            let (_, points) = range(Some(Unit::Minute), start_ms, end_ms)
                .units(NOW)
                .unwrap()
                .unwrap();
            assert_eq!(points.first(), Some(&first), "{case}");
            assert_eq!(points.last(), Some(&last), "{case}");
            let expected = (last - first) / MINUTE + 1;
            assert_eq!(points.len() as u64, expected, "{case}");
        }
        assert_eq!(range(None, None, None).units(NOW).unwrap(), None);
        let (_, days) = range(Some(Unit::Day), Some(NOW - 731 * DAY), None)
            .units(NOW)
            .unwrap()
            .unwrap();
        assert_eq!(days.len(), 732);
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused_for_all_that_is_wrong() {
        let minute = Some(Unit::Minute);
        for (range, expected) in [
            (
                range(None, Some(NOW), Some(NOW)),
                &["start_time", "end_time"][..],
            ),
            (range(minute, Some(NOW), Some(NOW)), &["start_time"]),
            (range(minute, Some(NOW), Some(NOW - 1)), &["start_time"]),
            (range(minute, Some(NOW + 1), Some(NOW + 2)), &["start_time"]),
            (range(minute, None, Some(NOW + 6 * MINUTE)), &["end_time"]),
            (
                range(minute, Some(FULL - 2879 * MINUTE - 1), None),
                &["start_time"],
            ),
            (
                range(minute, Some(0), Some(DAY)),
                &["end_time", "start_time"],
            ),
            (
                range(minute, Some(0), Some(NOW + DAY)),
                &["end_time", "start_time", "start_time"],
            ),
        ] {
            let case = format!("{range:?}");
            let Err(Error::Invalid(violations)) = range.units(NOW) else {
                panic!("not refused: {case}");
            };
            let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
            assert_eq!(fields, expected, "{case}");
        }
    }
}
