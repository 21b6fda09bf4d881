//! Times, spans, structs and sizes between protobuf and the domain, checked. It
//! does not know which message they come from.

use std::time::Duration;

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use crate::error::Violations;

const NANOS_PER_SECOND: i32 = 1_000_000_000;
const MS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// The last second of the year 9999, where RFC 3339 and `Timestamp` end.
const MAX_SECONDS: i64 = 253_402_300_799;

/// The longest `Duration` its documentation allows, in seconds (10,000 years).
const MAX_SPAN_SECONDS: i64 = 315_576_000_000;

/// How deep a struct may nest; JSON of ours is never read deeper.
const MAX_DEPTH: usize = 32;

/// Milliseconds since 1970 as a time; what is later than the year 9999 becomes
/// its end.
pub(crate) fn timestamp(ms: u64) -> prost_types::Timestamp {
    let (seconds, nanos) = split(ms);
    prost_types::Timestamp {
        seconds: seconds.min(MAX_SECONDS),
        nanos,
    }
}

/// A time as milliseconds since 1970, rounded down; a violation where it is out
/// of range or before 1970.
pub(crate) fn timestamp_ms(
    field: &str,
    time: &prost_types::Timestamp,
    violations: &mut Violations,
) -> Option<u64> {
    let valid =
        (0..=MAX_SECONDS).contains(&time.seconds) && (0..NANOS_PER_SECOND).contains(&time.nanos);
    match (
        valid,
        u64::try_from(time.seconds),
        u64::try_from(time.nanos),
    ) {
        (true, Ok(seconds), Ok(nanos)) => Some(seconds * MS_PER_SECOND + nanos / NANOS_PER_MS),
        _ => {
            violations.add(
                field,
                "not a time between 1970 and 9999 with 0 to 999,999,999 nanos",
            );
            None
        }
    }
}

/// Milliseconds as a span.
pub(crate) fn duration(ms: u64) -> prost_types::Duration {
    let (seconds, nanos) = split(ms);
    prost_types::Duration {
        seconds: seconds.min(MAX_SPAN_SECONDS),
        nanos,
    }
}

/// A span that is not negative; a violation where it is, or is out of range.
pub(crate) fn span(
    field: &str,
    span: &prost_types::Duration,
    violations: &mut Violations,
) -> Option<Duration> {
    let valid = (0..=MAX_SPAN_SECONDS).contains(&span.seconds)
        && (0..NANOS_PER_SECOND).contains(&span.nanos);
    match (
        valid,
        u64::try_from(span.seconds),
        u32::try_from(span.nanos),
    ) {
        (true, Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            violations.add(
                field,
                "not a span of 0 to 315,576,000,000 seconds with 0 to 999,999,999 nanos",
            );
            None
        }
    }
}

/// A span in whole milliseconds, a part of one rounded up, so that what is
/// longer than nothing stays so.
pub(crate) fn span_ms(
    field: &str,
    value: &prost_types::Duration,
    violations: &mut Violations,
) -> Option<u64> {
    let whole = span(field, value, violations)?;
    Some(u64::try_from(whole.as_nanos().div_ceil(u128::from(NANOS_PER_MS))).unwrap_or(u64::MAX))
}

/// A size or count as protobuf has it; what is beyond its range becomes its end.
pub(crate) fn int64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A struct as JSON; violations name each value JSON cannot hold.
pub(crate) fn json(
    field: &str,
    value: prost_types::Struct,
    violations: &mut Violations,
) -> Map<String, Value> {
    object(field, value, 0, violations)
}

fn object(
    field: &str,
    value: prost_types::Struct,
    depth: usize,
    violations: &mut Violations,
) -> Map<String, Value> {
    value
        .fields
        .into_iter()
        .map(|(name, value)| {
            let value = json_value(&format!("{field}.{name}"), value, depth + 1, violations);
            (name, value)
        })
        .collect()
}

fn json_value(
    field: &str,
    value: prost_types::Value,
    depth: usize,
    violations: &mut Violations,
) -> Value {
    if depth > MAX_DEPTH {
        violations.add(field, "nested deeper than 32 levels");
        return Value::Null;
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::NumberValue(value)) => Number::from_f64(value).map_or_else(
            || {
                violations.add(field, "not a number that JSON can hold");
                Value::Null
            },
            Value::Number,
        ),
        Some(Kind::ListValue(list)) => list
            .values
            .into_iter()
            .enumerate()
            .map(|(at, value)| json_value(&format!("{field}[{at}]"), value, depth + 1, violations))
            .collect(),
        Some(Kind::StructValue(value)) => Value::Object(object(field, value, depth, violations)),
    }
}

/// JSON as a struct.
pub(crate) fn structure(map: &Map<String, Value>) -> prost_types::Struct {
    let fields = map
        .iter()
        .map(|(name, value)| (name.clone(), proto_value(value)))
        .collect();
    prost_types::Struct { fields }
}

fn proto_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        // A protobuf number is a double; so was every number that came in.
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(proto_value).collect(),
        }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn split(ms: u64) -> (i64, i32) {
    let nanos = (ms % MS_PER_SECOND) * NANOS_PER_MS;
    (
        int64(ms / MS_PER_SECOND),
        i32::try_from(nanos).unwrap_or_default(),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked_at_their_edges() {
        for (seconds, nanos, expected) in [
            (0, 0, Some(0)),
            (0, 1, Some(1)),
            (0, 999_999, Some(1)),
            (0, 1_000_000, Some(1)),
            (1, 500_000_000, Some(1500)),
            (MAX_SPAN_SECONDS, 0, Some(315_576_000_000_000)),
            (MAX_SPAN_SECONDS + 1, 0, None),
            (i64::MAX, i32::MAX, None),
            (i64::MIN, i32::MIN, None),
            (-1, 0, None),
            (0, -1, None),
            (1, NANOS_PER_SECOND, None),
        ] {
            let mut violations = Violations::default();
            let ms = span_ms(
                "ttl",
                &prost_types::Duration { seconds, nanos },
                &mut violations,
            );
            assert_eq!(ms, expected, "{seconds} {nanos}");
            assert_eq!(violations.check().is_err(), expected.is_none());
        }
    }

    #[test]
    fn times_are_checked_at_their_edges() {
        for (seconds, nanos, expected) in [
            (0, 0, Some(0)),
            (1, 999_999_999, Some(1999)),
            (MAX_SECONDS, 0, Some(253_402_300_799_000)),
            (MAX_SECONDS + 1, 0, None),
            (-1, 0, None),
            (0, -1, None),
            (0, NANOS_PER_SECOND, None),
            (i64::MAX, i32::MAX, None),
        ] {
            let mut violations = Violations::default();
            let ms = timestamp_ms(
                "t",
                &prost_types::Timestamp { seconds, nanos },
                &mut violations,
            );
            assert_eq!(ms, expected, "{seconds} {nanos}");
        }
        assert_eq!(
            timestamp(1999),
            prost_types::Timestamp {
                seconds: 1,
                nanos: 999_000_000
            }
        );
        assert_eq!(timestamp(u64::MAX).seconds, MAX_SECONDS);
        assert_eq!(
            duration(1500),
            prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000
            }
        );
    }

    #[test]
    fn structs_read_back_and_what_json_cannot_hold_is_named() {
        let text = r#"{"a":{"b":[1.5,true,null,"x",{"c":-2.0}]},"":[]}"#;
        let map: Map<String, Value> = serde_json::from_str(text).unwrap();
        let mut violations = Violations::default();
        assert_eq!(json("settings", structure(&map), &mut violations), map);
        violations.check().unwrap();

        let mut proto = structure(&map);
        let nan = prost_types::Value {
            kind: Some(Kind::NumberValue(f64::NAN)),
        };
        proto.fields.insert("n".into(), nan);
        let mut deep = prost_types::Value { kind: None };
        for _ in 0..MAX_DEPTH {
            deep = prost_types::Value {
                kind: Some(Kind::ListValue(prost_types::ListValue {
                    values: vec![deep],
                })),
            };
        }
        proto.fields.insert("deep".into(), deep);
        let mut violations = Violations::default();
        json("settings", proto, &mut violations);
        let crate::error::Error::Invalid(found) = violations.check().unwrap_err() else {
            unreachable!()
        };
        let mut fields: Vec<_> = found.iter().map(|v| v.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields.last(), Some(&"settings.n"));
        assert_eq!(fields.len(), 2);
    }
}
