//! How a log line looks: as text, or as one object of JSON whose fields are those of the
//! event. Each line of a call tells whose it is. It does not know where lines go.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Format, Full, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::trace;

/// How lines look.
pub(super) enum Form {
    /// For machines.
    Json,
    /// For eyes.
    Text(Format<Full>),
}

impl Form {
    /// For eyes, in colours or not.
    pub(super) fn text(in_colours: bool) -> Self {
        Self::Text(format::format().with_ansi(in_colours))
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Json => json(&mut writer, event),
            Self::Text(format) => {
                let mut line = String::new();
                format.format_event(context, Writer::new(&mut line), event)?;
                let mut named = Named::default();
                event.record(&mut named);
                writer.write_str(line.trim_end_matches('\n'))?;
                named.rest(|name, value| write!(writer, " {name}={value}"))?;
                writer.write_char('\n')
            }
        }
    }
}

fn json(writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    writer.write_str("{\"timestamp\":\"")?;
    SystemTime.format_time(writer)?;
    write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
    let mut fields = Fields {
        to: writer,
        named: Named::default(),
        result: Ok(()),
    };
    event.record(&mut fields);
    fields.result?;
    let Fields { to, named, .. } = fields;
    named.rest(|name, value| {
        write!(to, ",\"{name}\":\"")?;
        write!(Escaped(to), "{value}")?;
        to.write_char('"')
    })?;
    to.write_str(",\"target\":\"")?;
    Escaped(to).write_str(metadata.target())?;
    to.write_str("\"}\n")
}

/// What a line tells of its call by itself.
#[derive(Default)]
struct Named {
    request_id: bool,
    trace_id: bool,
}

impl Named {
    fn note(&mut self, name: &str) {
        match name {
            "request_id" => self.request_id = true,
            "trace_id" => self.trace_id = true,
            _ => {}
        }
    }

    /// Tells the rest, where the line is one of a call.
    fn rest(&self, mut tell: impl FnMut(&str, &dyn fmt::Display) -> fmt::Result) -> fmt::Result {
        let told = trace::current(|call| {
            if !self.request_id {
                tell("request_id", &call.request_id)?;
            }
            match &call.trace_id {
                Some(trace_id) if !self.trace_id => tell("trace_id", trace_id),
                _ => Ok(()),
            }
        });
        told.unwrap_or(Ok(()))
    }
}

impl Visit for Named {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.note(field.name());
    }
}

/// Writes fields as members of an object that has some already.
struct Fields<'a, 'b> {
    to: &'a mut Writer<'b>,
    named: Named,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        self.named.note(field.name());
        // `r#type` is a name of Rust's.
        let name = field.name().trim_start_matches("r#");
        self.result = (|| {
            self.to.write_str(",\"")?;
            Escaped(self.to).write_str(name)?;
            self.to.write_str("\":")?;
            value(self.to)
        })();
    }
}

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |to| {
            to.write_char('"')?;
            write!(Escaped(to), "{value:?}")?;
            to.write_char('"')
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |to| {
            to.write_char('"')?;
            Escaped(to).write_str(value)?;
            to.write_char('"')
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |to| write!(to, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |to| write!(to, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |to| write!(to, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, |to| match value.is_finite() {
            true => write!(to, "{value}"),
            // JSON knows no other.
            false => to.write_str("null"),
        });
    }
}

/// Writes text as it stands between the quotes of JSON.
struct Escaped<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            match characters.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Page {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The lines that are written meanwhile.
    fn lines(form: Form, tell: impl FnOnce()) -> Vec<String> {
        let page = Page::default();
        let written = tracing_subscriber::fmt::layer()
            .with_writer(page.clone())
            .event_format(form);
        let subscriber = tracing_subscriber::registry().with(written);
        tracing::subscriber::with_default(subscriber, tell);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn call() -> trace::Call {
        trace::Call {
            request_id: "r-1".into(),
            trace_id: Some(trace::TraceId(0xabc)),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_of_json_is_what_was_told() {
        let said = lines(Form::Json, || {
            tracing::warn!(
                target: "some::where",
                text = "a \"quoted\" \\ \n\u{1} line \u{1f980}",
                count = 7_u64,
                below = -7,
                yes = true,
                part = 0.5,
                none = f64::NAN,
                shown = ?Some("x"),
                "it happened"
            );
        });
        let mut line: Value = serde_json::from_str(&said[0]).unwrap();
        let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        let expected = json!({
            "level": "WARN", "target": "some::where", "message": "it happened",
            "text": "a \"quoted\" \\ \n\u{1} line \u{1f980}",
            "count": 7, "below": -7, "yes": true, "part": 0.5, "none": null,
            "shown": "Some(\"x\")",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_tells_whose_call_it_is_of_once() {
        let tell = || {
            trace::sync_within(call(), || {
                tracing::info!("of a call");
                tracing::info!(request_id = "r-1", "of a call");
            });
            tracing::info!("of none");
        };
        let said = lines(Form::Json, tell);
        let trace_id = "00000000000000000000000000000abc";
        for line in &said[..2] {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["request_id"], "r-1");
            assert_eq!(line["trace_id"], trace_id);
        }
        assert!(
            said.iter()
                .all(|line| line.matches("request_id").count() <= 1)
        );
        assert!(!said[2].contains("_id"));
        let said = lines(Form::text(false), tell);
        let ending = format!("of a call request_id=r-1 trace_id={trace_id}");
        assert!(said[0].ends_with(&ending), "{}", said[0]);
        assert_eq!(said[1].matches("request_id=").count(), 1, "{}", said[1]);
        assert!(said[2].ends_with("of none"), "{}", said[2]);
    }
}
