//! How values are written: durations, sizes, limits, switches, addresses.
//! Strict: nothing is rounded, wrapped or guessed. It does not know which
//! setting uses what, nor which values make sense there.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use secrecy::SecretString;
use serde::{
    Deserializer,
    de::{self, Error},
};

/// Takes any scalar as its text, and null as `None`, so that a value means the
/// same whether a file, the environment or a flag brought it.
struct Scalar(&'static str);

impl de::Visitor<'_> for Scalar {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, switch: bool) -> Result<Option<String>, E> {
        Ok(Some(switch.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.trim().to_owned()))
    }
}

pub(super) fn required<'de, D: Deserializer<'de>, T>(
    value: D,
    expected: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = value.deserialize_any(Scalar(expected))?;
    let text = text.ok_or_else(|| D::Error::custom(format_args!("nothing is not {expected}")))?;
    read(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is not {expected}")))
}

/// Where nothing and the empty text mean `None`.
fn optional<'de, D: Deserializer<'de>, T>(
    value: D,
    expected: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    match value.deserialize_any(Scalar(expected))? {
        Some(text) if !text.is_empty() => match read(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(D::Error::custom(format_args!("{text:?} is not {expected}"))),
        },
        _ => Ok(None),
    }
}

const DURATION: &str = "a duration with its unit, such as 500ms, 30s, 12h or 7d";
const SIZE: &str = "a size: bytes, or with a unit such as 512 KiB, 20 MiB or 1 GiB";

pub(super) fn duration<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    required(value, DURATION, read_duration)
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<Duration>, D::Error> {
    optional(value, DURATION, read_duration)
}

pub(super) fn size<'de, D: Deserializer<'de>>(value: D) -> Result<usize, D::Error> {
    required(value, SIZE, |text| read_size(text)?.try_into().ok())
}

/// A size of any order.
pub(super) fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    required(value, SIZE, |text| read_size(text)?.try_into().ok())
}

/// A size, or -1.
pub(super) fn size_limit<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    let expected =
        "a size (bytes, or with a unit such as 512 KiB, 20 MiB or 1 GiB), or -1 for unlimited";
    required(value, expected, |text| match text {
        "-1" => Some(-1),
        _ => read_size(text)?.try_into().ok(),
    })
}

/// A whole number, or -1.
pub(super) fn limit<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    required(
        value,
        "a whole number of 0 or more, or -1 for unlimited",
        |text| text.parse().ok().filter(|number| *number >= -1),
    )
}

/// A whole number.
pub(super) fn number<'de, D: Deserializer<'de>, T: FromStr>(value: D) -> Result<T, D::Error> {
    required(
        value,
        "a whole number of 0 or more, within bounds",
        |text| text.parse().ok(),
    )
}

pub(super) fn switch<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    required(value, "true or false", |text| {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    })
}

pub(super) fn address<'de, D: Deserializer<'de>>(value: D) -> Result<SocketAddr, D::Error> {
    required(
        value,
        "an IP address and a port, such as 127.0.0.1:50051 or [::1]:50051",
        |text| text.parse().ok(),
    )
}

pub(super) fn text<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    required(value, "a text", |text| {
        Some(text.to_owned()).filter(|text| !text.is_empty())
    })
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<PathBuf>, D::Error> {
    optional(value, "a path", |text| Some(PathBuf::from(text)))
}

/// A text, or nothing.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<String>, D::Error> {
    optional(value, "a text", |text| Some(text.to_owned()))
}

pub(super) fn path<'de, D: Deserializer<'de>>(value: D) -> Result<PathBuf, D::Error> {
    required(value, "a path", |text| {
        Some(PathBuf::from(text)).filter(|_| !text.is_empty())
    })
}

/// Reads whatever is given, so that no error shows it.
pub(super) fn secret<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<SecretString>, D::Error> {
    optional(value, "a text", |text| Some(SecretString::from(text)))
}

/// A duration as it is written in settings and on the command line.
pub fn read_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A duration as it would be written in settings: in its largest whole unit.
pub(super) fn write_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    match units
        .into_iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// A size in bytes as it is written in settings and on the command line.
pub fn read_size(text: &str) -> Option<u64> {
    // The parser saturates at the end of u64; no size comes near it.
    text.parse::<ByteSize>()
        .ok()
        .map(|size| size.0)
        .filter(|bytes| *bytes < u64::MAX)
}

/// One of the values, by its name; nothing is the empty name.
pub(super) fn choose<'de, D: Deserializer<'de>, T: Copy>(
    value: D,
    values: &[(&'static str, T)],
) -> Result<T, D::Error> {
    let text = value.deserialize_any(Scalar("a name"))?.unwrap_or_default();
    values
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names = values.iter().map(|(name, _)| *name);
            let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
            D::Error::custom(format_args!("{text:?} is not one of: {}", names.join(", ")))
        })
}
