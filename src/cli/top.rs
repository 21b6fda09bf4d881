//! `top`: a fleet as it is now and was in the last hour, until it is quit. It asks the
//! admin port of each replica, and does not know how they count.

mod figures;
mod fleet;
mod live;
mod number;
mod screen;
mod view;

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use clap::Args;
use ratatui::{buffer::Buffer, layout::Rect};

use self::{
    figures::Figures,
    fleet::{Fleet, Replica},
    screen::Ink,
};
use super::{
    client::{self, Admin, Global, Kind, Silence},
    failure::Failure,
    output::{self, Format},
};

/// Where a replica tells its figures.
const PATH: &str = "/figures";

/// The size of a frame where there is no terminal; it is cut to what is used.
const COLUMNS: u16 = 120;
const ROWS: u16 = 24;

/// The largest frame that is drawn as text.
const MOST: u16 = 1000;

#[derive(Args, Debug)]
pub(super) struct Top {
    /// The admin port of a replica, https:// where it speaks TLS; may be given once for
    /// each [default: `server.admin_listen` of the settings, which is
    /// http://127.0.0.1:9464 where nothing else is set].
    #[arg(
        long = "admin-address",
        value_name = "URL",
        env = "RIPTIDE_ADMIN_ADDRESS",
        value_delimiter = ','
    )]
    admin_addresses: Vec<String>,
    /// How often the replicas are asked.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Print one frame as text and end; so it does where it writes to no terminal.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = client::duration(text)?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    match allowed.contains(&interval) {
        true => Ok(interval),
        false => Err("from 100ms to 1h".to_owned()),
    }
}

impl Top {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut watched = Watched::new(Admin::all(global, &self.admin_addresses)?);
        let answers = watched.ask().await;
        // Whoever looks at nobody should know at once, and on the terminal as it is.
        if let Some(silence) = worst(&answers) {
            return Err(silence.into());
        }
        watched.hear(answers, Instant::now());
        let fleet = watched.fleet(Instant::now());
        if global.output == Format::Json {
            return output::show(Format::Json, &fleet.json(), String::new);
        }
        if self.once || !io::stdout().is_terminal() {
            return output::write(frame(size(), &fleet).as_bytes());
        }
        live::run(watched, self.interval).await
    }
}

/// The replicas that are asked, and what they told last.
struct Watched {
    ports: Vec<Admin>,
    replicas: Vec<(Replica, Instant)>,
}

/// What each replica answered, in their order.
type Answers = Vec<Result<Figures, Silence>>;

impl Watched {
    fn new(ports: Vec<Admin>) -> Self {
        let replicas = ports.iter().map(|port| {
            let replica = Replica {
                address: port.address().to_owned(),
                ..Replica::default()
            };
            (replica, Instant::now())
        });
        Self {
            replicas: replicas.collect(),
            ports,
        }
    }

    /// Asks all of them at once.
    async fn ask(&self) -> Answers {
        ask(&self.ports).await
    }

    fn hear(&mut self, answers: Answers, now: Instant) {
        for ((replica, at), answer) in self.replicas.iter_mut().zip(answers) {
            match answer {
                Ok(figures) => {
                    replica.told = Some((figures, Duration::ZERO));
                    replica.silent = None;
                    *at = now;
                }
                Err(silence) => replica.silent = Some(silence.why),
            }
        }
    }

    /// All of them as one.
    fn fleet(&mut self, now: Instant) -> Fleet {
        let replicas = self.replicas.iter_mut().map(|(replica, at)| {
            if let Some((_, age)) = &mut replica.told {
                *age = now.saturating_duration_since(*at);
            }
            replica.clone()
        });
        Fleet::of(&replicas.collect::<Vec<_>>())
    }
}

async fn ask(ports: &[Admin]) -> Answers {
    let asked = ports.iter().map(|port| async move {
        let json = port.get(PATH).await?;
        Figures::read(&json)
            .ok_or_else(|| port.silence(Kind::Unfit, "what it answers are no figures"))
    });
    futures::future::join_all(asked).await
}

/// Where none answers, the reason that whoever asked can do most about.
fn worst(answers: &Answers) -> Option<Silence> {
    let silent: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    if silent.len() < answers.len() {
        return None;
    }
    let denied = silent.iter().find(|silence| silence.kind == Kind::Denied);
    denied.or(silent.first()).map(|silence| (*silence).clone())
}

/// One frame as text, as long as it takes to show every tenant.
fn frame((columns, rows): (u16, u16), fleet: &Fleet) -> String {
    let tenants = u16::try_from(fleet.tenants.len()).unwrap_or(MOST);
    let rows = rows.saturating_add(tenants).min(MOST);
    let area = Rect::new(0, 0, columns.clamp(1, MOST), rows);
    let mut buffer = Buffer::empty(area);
    screen::draw_still(area, &mut buffer, Ink::plain_text(), fleet);
    screen::text(&buffer)
}

/// How large a frame is: as wide as the terminal, or as COLUMNS says.
fn size() -> (u16, u16) {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
    (told.or_else(terminal).unwrap_or(COLUMNS), ROWS)
}
