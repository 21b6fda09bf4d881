//! The terminal while it is watched: keys, signals, questions in between, and the
//! terminal as it was in the end, however it ends. It does not know what is drawn.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Answers, Watched, ask,
    fleet::Fleet,
    screen::{self, Ink},
    view::{Press, View},
};
use crate::cli::failure::{Exit, Failure};

/// How soon the thread that reads keys sees that nobody waits for them.
const KEYS_PAUSE: Duration = Duration::from_millis(100);

/// A terminal that is given back as it was.
struct Screen {
    terminal: DefaultTerminal,
    ink: Ink,
}

impl Screen {
    /// Takes the terminal over; from here on a panic gives it back too.
    fn open() -> io::Result<Self> {
        let ink = Ink::of_process();
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal, ink }),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    fn draw(&mut self, view: &View, fleet: &Fleet) -> io::Result<()> {
        let ink = self.ink;
        let drawn = self
            .terminal
            .draw(|frame| screen::draw(frame.area(), frame.buffer_mut(), ink, view, fleet));
        drawn.map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Shows the fleet until it is told to stop.
pub(super) async fn run(watched: Watched, every: Duration) -> Result<(), Failure> {
    let ended = watch(watched, every).await;
    ended.map_err(|error| Failure::new(Exit::Failed, format!("the terminal: {error}")))
}

async fn watch(mut watched: Watched, every: Duration) -> io::Result<()> {
    let mut stops = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let mut screen = Screen::open()?;
    let mut keys = Keys::listen();
    let mut view = View::default();
    let mut fleet = watched.fleet(Instant::now());
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first answers are known.
    ticks.tick().await;
    let mut asking: Option<BoxFuture<'static, Answers>> = None;
    loop {
        screen.draw(&view, &fleet)?;
        let [interrupt, terminate, hangup] = &mut stops;
        let stop = pin!(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let answered = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop => return Ok(()),
            event = keys.events.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if view.press(key, &fleet) == Press::Quit {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                if asking.is_none() && !view.paused {
                    let ports = watched.ports.clone();
                    asking = Some(async move { ask(&ports).await }.boxed());
                }
            }
            answers = answered => {
                asking = None;
                watched.hear(answers, Instant::now());
                // What came in a pause is shown when that is over.
                if !view.paused {
                    fleet = watched.fleet(Instant::now());
                }
            }
        }
    }
}

/// What is typed, and the terminal's changes of size.
struct Keys {
    events: mpsc::UnboundedReceiver<io::Result<Event>>,
    over: Arc<AtomicBool>,
}

impl Keys {
    /// Reading blocks, so a thread of its own does it.
    fn listen() -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let event = match event::poll(KEYS_PAUSE) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                let failed = event.is_err();
                if tell.send(event).is_err() || failed {
                    return;
                }
            }
        });
        Self { events, over }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
