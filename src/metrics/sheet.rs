//! The figures of one scrape, and how they are written: as OpenMetrics, or in the older
//! text format of Prometheus. It does not know where they come from.

use std::{borrow::Cow, collections::HashMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::family::{FAMILIES, Family, Kind};
use crate::histogram::Taken;

/// How figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// The one that an `accept` header asks for.
    pub fn accepted(accept: Option<&str>) -> Self {
        let kinds = accept.unwrap_or_default().split(',');
        let mut kinds = kinds.filter_map(|kind| kind.split(';').next());
        if kinds.any(|kind| kind.trim() == "application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// A label and its value.
type Label = (&'static str, Cow<'static, str>);

#[derive(Debug)]
enum Value {
    Count(u64),
    Amount(f64),
    Took(Taken),
}

/// The figures of one scrape.
#[derive(Debug, Default)]
pub(super) struct Sheet(HashMap<&'static str, Vec<(Vec<Label>, Value)>>);

impl Sheet {
    /// A figure without labels.
    pub(super) fn one(&mut self, family: &Family, value: impl Into<Figure>) {
        self.put(family, [], value);
    }

    /// A figure with the values of its labels, in the order of the table.
    pub(super) fn put<const N: usize>(
        &mut self,
        family: &Family,
        labels: [Cow<'static, str>; N],
        value: impl Into<Figure>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        let labels = family.labels.iter().copied().zip(labels).collect();
        let Figure(value) = value.into();
        self.0.entry(family.name).or_default().push((labels, value));
    }

    /// All of it.
    ///
    /// # Errors
    /// Where the text cannot be written.
    pub(super) fn written(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        match format {
            Format::OpenMetrics => text::encode(&mut written, &registry)?,
            Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
        }
        Ok(written)
    }
}

/// A value of a [`Sheet`].
pub(super) struct Figure(Value);

impl From<u64> for Figure {
    fn from(count: u64) -> Self {
        Self(Value::Count(count))
    }
}

impl From<usize> for Figure {
    fn from(count: usize) -> Self {
        Self(Value::Count(count as u64))
    }
}

impl From<bool> for Figure {
    fn from(is: bool) -> Self {
        Self(Value::Count(is.into()))
    }
}

impl From<f64> for Figure {
    fn from(amount: f64) -> Self {
        Self(Value::Amount(amount))
    }
}

impl From<Taken> for Figure {
    fn from(taken: Taken) -> Self {
        Self(Value::Took(taken))
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in FAMILIES {
            let (name, unit) = split(family);
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut encoder = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            for (labels, value) in self.0.get(family.name).into_iter().flatten() {
                if family.kind == Kind::Info {
                    encoder.encode_info(labels)?;
                } else if labels.is_empty() {
                    write(&mut encoder, family.kind, value)?;
                } else {
                    write(&mut encoder.encode_family(labels)?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut MetricEncoder, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        (Kind::Counter, Value::Amount(amount)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(amount, None)
        }
        (_, Value::Count(count)) => encoder.encode_gauge(count),
        (_, Value::Amount(amount)) => encoder.encode_gauge(amount),
        (_, Value::Took(taken)) => {
            let buckets: Vec<_> = taken.buckets().collect();
            encoder.encode_histogram::<NoLabelSet>(taken.seconds(), taken.count(), &buckets, None)
        }
    }
}

/// The name without what its kind and its unit put behind it, and the unit.
fn split(family: &Family) -> (&'static str, Option<Unit>) {
    let name = match family.kind {
        Kind::Counter => family.name.strip_suffix("_total"),
        Kind::Info => family.name.strip_suffix("_info"),
        Kind::Gauge | Kind::Histogram => None,
    };
    let name = name.unwrap_or(family.name);
    let unit = match family.unit {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        _ => return (name, None),
    };
    let base = name
        .strip_suffix(unit.as_str())
        .and_then(|name| name.strip_suffix('_'));
    match base {
        Some(base) => (base, Some(unit)),
        None => (name, None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::family;

    #[test]
    fn names_are_those_of_their_kind_and_unit() {
        for family in FAMILIES {
            let (base, unit) = split(family);
            assert_eq!(unit.is_some(), !family.unit.is_empty(), "{}", family.name);
            let is_counter = family.kind == Kind::Counter;
            assert_eq!(family.name.ends_with("_total"), is_counter, "{base}");
            assert_eq!(family.name.ends_with("_info"), family.kind == Kind::Info);
            let of_name = FAMILIES.iter().filter(|other| other.name == family.name);
            assert_eq!(of_name.count(), 1, "{} is there twice", family.name);
        }
    }

    #[test]
    fn a_figure_is_written_in_both_formats() {
        let sheet = || {
            let mut sheet = Sheet::default();
            sheet.put(&family::CACHE_READS, ["hit".into()], 7_u64);
            sheet.one(&family::METER_OLDEST, 0.5);
            sheet
        };
        let open = sheet().written(Format::OpenMetrics).unwrap();
        for line in [
            "# TYPE riptide_cache_reads counter",
            "riptide_cache_reads_total{result=\"hit\"} 7",
            "# UNIT riptide_meter_oldest_unflushed_seconds seconds",
            "riptide_meter_oldest_unflushed_seconds 0.5",
        ] {
            assert!(open.lines().any(|l| l == line), "{line} is not in\n{open}");
        }
        assert!(open.ends_with("# EOF\n"));
        let older = sheet().written(Format::Prometheus).unwrap();
        assert!(older.contains("# TYPE riptide_cache_reads_total counter\n"));
        assert!(!older.contains("# EOF"));
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (
                Some("text/plain;version=0.0.4;q=0.5, application/openmetrics-text; version=1.0.0"),
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }
}
