//! The course of a tenant's usage: a plot of operations, hit rate, transfer and
//! memory over time. It does not know how wide it is shown.

use prost_types::Timestamp;

use super::Unit;
use crate::{
    cli::{amount, json, plot::Canvas},
    proto::v1::{GetTenantUsageResponse, UsagePoint},
};

/// What the points of a column come to.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    operations: i128,
    hits: i128,
    misses: i128,
    transfer: i128,
    /// Bytes held, times the seconds they were held.
    byte_seconds: i128,
    /// The time that has passed of it.
    ms: i128,
}

impl Column {
    fn add(&mut self, point: &UsagePoint, by: Unit, as_of: Option<Timestamp>) {
        self.operations += i128::from(point.operations);
        self.hits += i128::from(point.hits);
        self.misses += i128::from(point.misses);
        self.transfer += i128::from(point.data_transfer_bytes);
        self.byte_seconds += i128::from(point.memory_byte_seconds);
        // The last point may still be under way.
        let passed = match (point.start_time, as_of) {
            (Some(start), Some(as_of)) => ms(as_of) - ms(start),
            _ => by.ms(),
        };
        self.ms += passed.clamp(0, by.ms());
    }

    /// In thousandths; nothing where nothing was read.
    fn hit_rate(&self) -> Option<i128> {
        rate(self.hits, self.misses)
    }

    /// Bytes held on average.
    fn memory(&self) -> Option<i128> {
        (self.byte_seconds > 0 && self.ms > 0).then(|| self.byte_seconds * 1000 / self.ms)
    }
}

fn ms(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1000 + i128::from(time.nanos) / 1_000_000
}

fn rate(hits: i128, misses: i128) -> Option<i128> {
    let reads = hits + misses;
    (reads > 0).then(|| hits * 1000 / reads)
}

fn some(value: i128) -> Option<i128> {
    (value > 0).then_some(value)
}

/// The plots, each under its name and figures; nothing where there are no points.
pub(super) fn lines(answer: &GetTenantUsageResponse, by: Unit, canvas: &Canvas) -> String {
    let points = &answer.points;
    let share = canvas.share(points.len());
    let columns: Vec<Column> = points
        .chunks(share)
        .map(|points| {
            let mut column = Column::default();
            points
                .iter()
                .for_each(|point| column.add(point, by, answer.as_of));
            column
        })
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let each = match (share, by) {
        (1, Unit::Hour) => "an hour".to_owned(),
        (1, by) => format!("a {by}"),
        (share, by) => format!("{share} {by}s"),
    };
    let most = |series: &[Option<i128>]| series.iter().flatten().copied().max().unwrap_or(0);
    let sum = |of: fn(&Column) -> i128| columns.iter().map(of).sum::<i128>();
    let number = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    let mut plots = Vec::new();
    let mut plot = |heading: String, series: &[Option<i128>], top: i128| {
        plots.push(format!("{heading}\n{}", canvas.line(series, top)));
    };

    let operations: Vec<_> = columns.iter().map(|c| some(c.operations)).collect();
    let top = most(&operations);
    let heading = format!(
        "operations  {} in all, at most {} in a column",
        amount::count(number(sum(|c| c.operations))),
        amount::count(number(top)),
    );
    plot(heading, &operations, top);

    let hit_rates: Vec<_> = columns.iter().map(Column::hit_rate).collect();
    let overall = rate(sum(|c| c.hits), sum(|c| c.misses));
    let heading = overall.map_or_else(
        || "hit rate  nothing was read".to_owned(),
        |rate| format!("hit rate  {}.{} % in all", rate / 10, rate % 10),
    );
    plot(heading, &hit_rates, 1000);

    let transfer: Vec<_> = columns.iter().map(|c| some(c.transfer)).collect();
    let top = most(&transfer);
    let heading = format!(
        "transfer  {} in all, at most {} in a column",
        amount::bytes(number(sum(|c| c.transfer))),
        amount::bytes(number(top)),
    );
    plot(heading, &transfer, top);

    let memory: Vec<_> = columns.iter().map(Column::memory).collect();
    let top = most(&memory);
    let heading = format!(
        "memory  at most {} on average over a column",
        amount::bytes(number(top)),
    );
    plot(heading, &memory, top);

    let time = |point: &UsagePoint| {
        let time = json::time(point.start_time);
        time.as_str().unwrap_or_default().to_owned()
    };
    plots.push(format!(
        "A column is {each}; {} to {}",
        time(first),
        time(last)
    ));
    plots.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn point(minute: i64, operations: i64, hits: i64, misses: i64, held: i64) -> UsagePoint {
        UsagePoint {
            start_time: Some(Timestamp {
                seconds: minute * 60,
                nanos: 0,
            }),
            operations,
            hits,
            misses,
            data_transfer_bytes: operations * 1024,
            memory_byte_seconds: held * 60,
            ..UsagePoint::default()
        }
    }

    fn drawn(points: Vec<UsagePoint>, as_of: i64, width: usize) -> Vec<String> {
        let answer = GetTenantUsageResponse {
            points,
            as_of: Some(Timestamp {
                seconds: as_of,
                nanos: 0,
            }),
            ..GetTenantUsageResponse::default()
        };
        let canvas = Canvas::ascii(width);
        let text = lines(&answer, Unit::Minute, &canvas);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_series_has_its_own_measure() {
        let points = vec![
            point(0, 0, 0, 0, 0),
            point(1, 4, 1, 3, 1 << 20),
            point(2, 8, 8, 0, 1 << 19),
            // Half a minute has passed of it.
            UsagePoint {
                memory_byte_seconds: 30 << 20,
                ..point(3, 1, 0, 0, 0)
            },
        ];
        let expected = [
            "operations  13 in all, at most 8 in a column",
            " =@.",
            "hit rate  75.0 % in all",
            " :@ ",
            "transfer  13 KiB in all, at most 8 KiB in a column",
            " =@.",
            "memory  at most 1 MiB on average over a column",
            " @=@",
            "A column is a minute; 1970-01-01T00:00:00Z to 1970-01-01T00:03:00Z",
        ];
        assert_eq!(drawn(points, 210, 80), expected);
    }

    #[test]
    fn what_does_not_fit_shares_columns() {
        let points = (0..7).map(|minute| point(minute, 1, 1, 0, 1024)).collect();
        let found = drawn(points, 420, 3);
        assert_eq!(found[0], "operations  7 in all, at most 3 in a column");
        assert_eq!(found[1], "@@-");
        assert_eq!(found[7], "@@@", "an average");
        assert!(found[8].starts_with("A column is 3 minutes; "));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(drawn(Vec::new(), 0, 80).is_empty());
        let quiet = drawn(vec![point(0, 0, 0, 0, 0)], 60, 80);
        assert_eq!(quiet[2], "hit rate  nothing was read");
        assert_eq!(quiet[1], " ");
    }
}
