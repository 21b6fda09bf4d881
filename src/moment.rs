//! The time as a call sees it: it looks at the clock when it goes on, and until it waits
//! again all that is done for it sees that time. It does not know what is timed.
//!
//! Between two waits lie microseconds, and a call would look at the clock a dozen times in
//! them. Whatever decides by such a time decides as of no earlier than the call began.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What was seen of the clocks.
#[derive(Clone, Copy)]
struct Moment {
    monotonic: Instant,
    unix: Option<Duration>,
}

thread_local! {
    /// That of the poll that this thread is in.
    static MOMENT: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// When the work went on that this thread does, or the present where it is no
/// [`Looking`] work.
pub fn now() -> Instant {
    MOMENT
        .get()
        .map_or_else(Instant::now, |moment| moment.monotonic)
}

/// The same by the machine's clock, since 1970.
pub fn unix() -> Duration {
    let look = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    };
    let Some(moment) = MOMENT.get() else {
        return look();
    };
    moment.unix.unwrap_or_else(|| {
        let unix = look();
        MOMENT.set(Some(Moment {
            unix: Some(unix),
            ..moment
        }));
        unix
    })
}

/// Work that looks at the clock each time it goes on.
#[derive(Debug)]
pub struct Looking<F>(pub F);

impl<F: Future + Unpin> Future for Looking<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let moment = Moment {
            monotonic: Instant::now(),
            unix: None,
        };
        let _before = Before(MOMENT.replace(Some(moment)));
        Pin::new(&mut self.0).poll(context)
    }
}

/// What held before; it holds again at the end, also that of a panic.
struct Before(Option<Moment>);

impl Drop for Before {
    fn drop(&mut self) {
        MOMENT.set(self.0);
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::{pin::pin, thread::sleep};

    use tokio::task::yield_now;

    use super::*;

    fn pass() {
        sleep(Duration::from_millis(2));
    }

    #[tokio::test]
    async fn time_stands_until_the_work_waits() {
        let work = async {
            let (monotonic, unix) = (now(), self::unix());
            pass();
            assert_eq!((now(), self::unix()), (monotonic, unix));
            yield_now().await;
            assert!(now() > monotonic && self::unix() > unix);
        };
        Looking(pin!(work)).await;
        let (monotonic, unix) = (now(), self::unix());
        pass();
        assert!(now() > monotonic && self::unix() > unix);
    }

    #[tokio::test]
    async fn a_panic_leaves_no_time_behind() {
        let work = Box::pin(async { panic!("at some moment") });
        let work = std::panic::AssertUnwindSafe(Looking(work));
        assert!(futures::FutureExt::catch_unwind(work).await.is_err());
        let before = now();
        pass();
        assert!(now() > before);
    }
}
