//! Commits that are asked for at the same time in one space. They travel together and
//! one script applies them, each by itself, so that a space that is written to a lot
//! costs the server, the driver and the network little more than one that is not. It
//! does not know what a batch says.
//!
//! Nothing waits for others to come: the first leaves as soon as all that is ready to
//! run on its core has run, with those that were asked for meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{runtime, sync::oneshot, task};

use super::{fault::Fault, keys, pool::Pool, reply, script::Script, server::Shared};
use crate::store::Space;

/// Writes that travel together at most: a script of them takes the server less than a
/// millisecond.
const MAX_WRITES: usize = 64;

/// Bytes of values that travel together at most.
const MAX_BYTES: usize = 256 << 10;

/// A batch, as commit.lua takes it.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its keys, without the space's counters, which come before them.
    pub(super) keys: Vec<Bytes>,
    /// Its arguments.
    pub(super) args: Vec<Bytes>,
    /// Whether it may need memory; what needs none goes on at maxmemory.
    pub(super) puts: bool,
}

/// What of a group is taken.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    writes: usize,
    bytes: usize,
}

impl Load {
    fn of(asked: &Asked) -> Self {
        Self {
            writes: asked.args.len() / 2,
            bytes: asked.args.iter().map(Bytes::len).sum(),
        }
    }

    /// Both, where that is not too much.
    fn with(self, more: Self) -> Option<Self> {
        let sum = Self {
            writes: self.writes + more.writes,
            bytes: self.bytes + more.bytes,
        };
        (sum.writes <= MAX_WRITES && sum.bytes <= MAX_BYTES).then_some(sum)
    }
}

/// What came of one of a group.
enum Came {
    /// This.
    Answer(Result<Bytes, Fault>),
    /// Nothing: one before it was refused, and it was not run.
    Nothing(Asked),
}

/// One of a group.
struct Member {
    asked: Asked,
    came: oneshot::Sender<Came>,
}

/// Those who leave with the first of them.
struct Group {
    number: u64,
    space: Space,
    puts: bool,
    load: Load,
    others: Vec<Member>,
}

/// The groups that are forming, of one core.
#[derive(Default)]
struct Forming {
    groups: Vec<Group>,
    /// The number of the last.
    last: u64,
}

/// Sends commits, together where they come together.
pub(super) struct Groups {
    forming: Mutex<Forming>,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
}

impl Groups {
    pub(super) fn new(pool: Arc<Pool>, shared: Arc<Shared>) -> Self {
        Self {
            forming: Mutex::default(),
            pool,
            shared,
        }
    }

    /// What the commit script answers to a batch.
    pub(super) async fn run(&self, space: &Space, asked: Asked) -> Result<Bytes, Fault> {
        match self.join(space, asked) {
            Place::First(asked, mut lead) => {
                // Those who are ready now come along.
                task::yield_now().await;
                let others = lead.take().map_or_else(Vec::new, |group| group.others);
                if others.is_empty() {
                    return self.alone(space, asked).await;
                }
                let (came, answer) = oneshot::channel();
                let first = Member { asked, came };
                let members = [first].into_iter().chain(others).collect();
                // On its own, so that none is lost where another is given up.
                task::spawn(self.leaving(space, members));
                self.told(space, answer).await
            }
            Place::Behind(answer) => self.told(space, answer).await,
            Place::Alone(asked) => self.alone(space, asked).await,
        }
    }

    /// Finds a batch its place.
    fn join(&self, space: &Space, asked: Asked) -> Place<'_> {
        let more = Load::of(&asked);
        let Some(load) = Load::default().with(more) else {
            return Place::Alone(asked);
        };
        let mut forming = self.forming();
        for group in &mut forming.groups {
            if group.space == *space
                && group.puts == asked.puts
                && let Some(load) = group.load.with(more)
            {
                let (came, answer) = oneshot::channel();
                group.load = load;
                group.others.push(Member { asked, came });
                return Place::Behind(answer);
            }
        }
        forming.last += 1;
        let number = forming.last;
        forming.groups.push(Group {
            number,
            space: space.clone(),
            puts: asked.puts,
            load,
            others: Vec::new(),
        });
        let lead = Lead {
            groups: self,
            number: Some(number),
        };
        Place::First(asked, lead)
    }

    /// The answer to one of a group.
    async fn told(&self, space: &Space, came: oneshot::Receiver<Came>) -> Result<Bytes, Fault> {
        match came.await {
            Ok(Came::Answer(answer)) => answer,
            Ok(Came::Nothing(asked)) => self.alone(space, asked).await,
            Err(_) => Err(Fault::Lost("the store is closing".into())),
        }
    }

    /// Runs a batch by itself.
    async fn alone(&self, space: &Space, asked: Asked) -> Result<Bytes, Fault> {
        let scripts = &self.shared.scripts;
        let script = match asked.puts {
            true => &scripts.commit,
            false => &scripts.release,
        };
        let mut all = keys::counters(space);
        all.extend(asked.keys);
        let answer = self.pool.script(script, all, asked.args).await?;
        reply::told(answer)
    }

    /// Runs a group, and tells each of its members.
    fn leaving(
        &self,
        space: &Space,
        members: Vec<Member>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (pool, shared) = (Arc::clone(&self.pool), Arc::clone(&self.shared));
        let counters = keys::counters(space);
        async move {
            let scripts = &shared.scripts;
            let puts = members.first().is_some_and(|first| first.asked.puts);
            let script = match puts {
                true => &scripts.commits,
                false => &scripts.releases,
            };
            let answers = together(&pool, script, counters, &members).await;
            if let Err(Fault::Timeout) = answers {
                // The script was noticed; each of the others waited in vain, too.
                members
                    .iter()
                    .skip(1)
                    .for_each(|_| shared.breaker.timed_out());
            }
            tell(members, answers);
        }
    }

    fn forming(&self) -> MutexGuard<'_, Forming> {
        // Whole whoever panicked while holding it.
        self.forming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a batch goes.
enum Place<'a> {
    /// At the head of a group.
    First(Asked, Lead<'a>),
    /// With the first of one.
    Behind(oneshot::Receiver<Came>),
    /// By itself: it is too large for others.
    Alone(Asked),
}

/// Held by the first of a group until it leaves. Where that is given up, the others leave
/// without it.
struct Lead<'a> {
    groups: &'a Groups,
    /// The number of its group, until that is taken.
    number: Option<u64>,
}

impl Lead<'_> {
    /// The group, as it is now; once.
    fn take(&mut self) -> Option<Group> {
        let number = self.number.take()?;
        let mut forming = self.groups.forming();
        let mut groups = forming.groups.iter();
        let at = groups.position(|group| group.number == number)?;
        Some(forming.groups.swap_remove(at))
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(Group { space, others, .. }) = self.take()
            && !others.is_empty()
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            drop(runtime.spawn(self.groups.leaving(&space, others)));
        }
    }
}

/// What one script answers to batches, in order; fewer where one was refused.
async fn together(
    pool: &Pool,
    script: &Script,
    counters: Vec<Bytes>,
    members: &[Member],
) -> Result<Vec<Result<Bytes, Fault>>, Fault> {
    let mut sizes = BytesMut::with_capacity(4 * members.len());
    for Member { asked, .. } in members {
        sizes.put_uint(asked.keys.len() as u64, 2);
        sizes.put_uint(asked.args.len() as u64, 2);
    }
    let asked = || members.iter().map(|member| &member.asked);
    let mut all = counters;
    all.extend(asked().flat_map(|asked| asked.keys.iter().cloned()));
    let args = asked().flat_map(|asked| asked.args.iter().cloned());
    let args = [sizes.freeze()].into_iter().chain(args);
    let answer = pool.script(script, all, args).await?;
    let answers = reply::array(answer).map_err(Fault::NotRun)?;
    Ok(answers.into_iter().map(reply::told).collect())
}

/// Tells each member of a group what came of it.
fn tell(members: Vec<Member>, answers: Result<Vec<Result<Bytes, Fault>>, Fault>) {
    let mut answers = answers.map(Vec::into_iter);
    for Member { asked, came } in members {
        let told = match &mut answers {
            Ok(answers) => answers
                .next()
                .map_or_else(|| Came::Nothing(asked), Came::Answer),
            Err(fault) => Came::Answer(Err(fault.clone())),
        };
        // Where nobody waits any more, nobody is told.
        let _ = came.send(told);
    }
}
