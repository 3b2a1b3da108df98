//! Writes a recording beside the trading: trading never waits for it.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arbbot_crds::control::{Control, Restriction};

use super::line::{Decision, End, Header, Line, Seen, Turn};
use crate::execution::engine::{Command, Engine, Event, InForce, Now, Start};
use crate::risk::Contact;

/// Size at which a recording ends. A day of a trading bot is some hundred megabytes.
pub const MOST_BYTES: u64 = 2 << 30;
/// Room on its file system below which a recording ends: the ledger needs it more.
const LEAST_FREE_BYTES: u64 = 64 << 20;
/// How much is written between two looks at the room.
const LOOK_EVERY_BYTES: u64 = 1 << 20;
/// How long the end of a recording may hold up the end of the trading.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Turns that may wait for the disk.
const QUEUE: usize = 8192;
/// How long what is written may stay in memory.
const FLUSH: Duration = Duration::from_secs(1);

/// What happens to a turn that the disk is too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The recording ends there and says so: trading waits for nothing.
    End,
    /// The engine waits: where time is virtual.
    Wait,
}

/// A recording under way.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// None: the recording has ended.
    queue: Option<SyncSender<Item>>,
    when_full: WhenFull,
    turns: u64,
    seen: Option<[Seen; 2]>,
    restrictions: Vec<Restriction>,
    why: String,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Item {
    Turn(Box<Turn>),
    End(End),
}

impl Recorder {
    /// Begins a recording in a new file.
    ///
    /// # Errors
    /// There is such a file already, or it cannot be written.
    pub fn create(path: &Path, start: Start, when_full: WhenFull) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|cause| {
            let exists = cause.kind() == io::ErrorKind::AlreadyExists;
            if exists { io::Error::new(cause.kind(), "there is such a file: name a new one") } else { cause }
        })?;
        let of_file = path.to_owned();
        Self::begin(path, BufWriter::new(file), move || free_bytes(&of_file), start, when_full)
    }

    /// Begins one that goes elsewhere.
    pub(crate) fn begin<W: Write + Send + 'static>(
        path: &Path,
        out: W,
        free_bytes: impl Fn() -> u64 + Send + 'static,
        start: Start,
        when_full: WhenFull,
    ) -> io::Result<Self> {
        let mut out = Bounded { out, written: 0, looks_at: 0, free_bytes };
        out.line(&Line::Header(Box::new(Header::of(start))))?;
        out.out.flush()?;
        let (queue, items) = sync_channel(QUEUE);
        let of_thread = path.to_owned();
        let writer = std::thread::Builder::new().name("recording".to_owned()).spawn(move || {
            if let Err(error) = write(out, &items) {
                tracing::error!(path = %of_thread.display(), %error, "the recording of the session has ended; trading goes on");
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            queue: Some(queue),
            when_full,
            turns: 0,
            seen: None,
            restrictions: Vec::new(),
            why: String::new(),
            writer: Some(writer),
        })
    }

    /// Lets the engine take its turn, and writes down what went in and what came out.
    pub fn turn(&mut self, engine: &mut Engine, event: Event, gate: &impl InForce, now: Now) -> Vec<Command> {
        if self.queue.is_none() {
            return engine.handle(event, gate, now);
        }
        let noted = event.clone();
        let watched = Watched { gate, seen: RefCell::default(), restrictions: RefCell::default() };
        let commands = engine.handle(event, &watched, now);
        let Watched { seen, restrictions, .. } = watched;
        let turn = Turn {
            boot_ns: u64::try_from(now.boot.as_nanos()).unwrap_or(u64::MAX),
            wall: now.wall,
            event: noted,
            seen: self.changed_control(seen.into_inner()),
            restrictions: changed(&mut self.restrictions, restrictions.into_inner()),
            decided: commands.iter().map(Decision::from).collect(),
            why: (engine.why() != self.why).then(|| engine.why().to_owned()),
        };
        if let Some(why) = &turn.why {
            self.why.clone_from(why);
        }
        self.put(turn);
        commands
    }

    /// The engine looks twice in a turn.
    fn changed_control(&mut self, seen: Vec<Seen>) -> Option<[Seen; 2]> {
        let seen: [Seen; 2] = seen.try_into().ok()?;
        if self.seen.as_ref() == Some(&seen) {
            return None;
        }
        self.seen = Some(seen.clone());
        Some(seen)
    }

    fn put(&mut self, turn: Turn) {
        let Some(queue) = &self.queue else { return };
        let item = Item::Turn(Box::new(turn));
        let sent = match self.when_full {
            WhenFull::Wait => queue.send(item).map_err(|_| ()),
            WhenFull::End => match queue.try_send(item) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(_)) => {
                    let path = self.path.display();
                    tracing::error!(%path, "the disk is too slow for the recording of the session; it ends here, and trading goes on");
                    self.end(Some("the disk was too slow".to_owned()));
                    return;
                }
                Err(TrySendError::Disconnected(_)) => Err(()),
            },
        };
        match sent {
            Ok(()) => self.turns += 1,
            // The writer has said why.
            Err(()) => self.queue = None,
        }
    }

    /// The writer puts what waits before it on the disk first.
    fn end(&mut self, incomplete: Option<String>) {
        let Some(queue) = self.queue.take() else { return };
        let end = Item::End(End { turns: self.turns, incomplete });
        if self.when_full == WhenFull::Wait || self.writer.is_none() {
            queue.send(end).ok();
        } else {
            // A full queue is emptied by the writer; the trading does not wait for that.
            std::thread::spawn(move || queue.send(end).ok());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let (queue, writer) = (self.queue.take(), self.writer.take());
        let end = Item::End(End { turns: self.turns, incomplete: None });
        let path = self.path.clone();
        let finish = move || {
            if let Some(queue) = queue {
                queue.send(end).ok();
            }
            if writer.is_some_and(|writer| writer.join().is_err()) {
                tracing::error!(path = %path.display(), "the writer of the recording failed");
            }
        };
        if self.when_full == WhenFull::Wait {
            return finish();
        }
        // Whoever drops it is trading's own task, and its disk may not answer.
        let (done, is_done) = sync_channel(1);
        std::thread::spawn(move || {
            finish();
            done.send(()).ok();
        });
        if is_done.recv_timeout(ENDS_WITHIN).is_err() {
            let path = self.path.display();
            tracing::error!(%path, "the disk is too slow for the end of the recording of the session; it may be cut off");
        }
    }
}

/// Room on the file system of a file. What cannot be asked is found by what is written.
fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |volume| volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// What is new, if anything is.
fn changed(last: &mut Vec<Restriction>, now: Vec<Restriction>) -> Option<Vec<Restriction>> {
    if *last == now {
        return None;
    }
    last.clone_from(&now);
    Some(now)
}

/// Notes what the engine sees of the gate.
struct Watched<'a, G> {
    gate: &'a G,
    seen: RefCell<Vec<Seen>>,
    restrictions: RefCell<Vec<Restriction>>,
}

impl<G: InForce> InForce for Watched<'_, G> {
    fn current(&self) -> (Control, Contact) {
        let (control, contact) = self.gate.current();
        self.seen.borrow_mut().push(Seen { control: control.clone(), contact });
        (control, contact)
    }

    fn restrict(&self, restrictions: Vec<Restriction>) {
        self.restrictions.borrow_mut().clone_from(&restrictions);
        self.gate.restrict(restrictions);
    }
}

/// A file that does not grow beyond a size, its last line aside, and leaves room on its file system.
struct Bounded<W, F> {
    out: W,
    written: u64,
    /// Bytes written at which the room is looked at next.
    looks_at: u64,
    free_bytes: F,
}

impl<W: Write, F: Fn() -> u64> Bounded<W, F> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.written += u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.out.write_all(&text)
    }

    /// Why nothing more is to be written.
    fn is_full(&mut self) -> Option<String> {
        if self.written >= MOST_BYTES {
            return Some(format!("it has the largest size, {MOST_BYTES} bytes"));
        }
        if self.written < self.looks_at {
            return None;
        }
        self.looks_at = self.written + LOOK_EVERY_BYTES;
        let free = (self.free_bytes)();
        (free < LEAST_FREE_BYTES)
            .then(|| format!("{} MiB are free on its file system, less than {}", free >> 20, LEAST_FREE_BYTES >> 20))
    }
}

/// Writes until the recording ends.
fn write<W: Write, F: Fn() -> u64>(mut out: Bounded<W, F>, items: &Receiver<Item>) -> io::Result<()> {
    let mut turns = 0;
    loop {
        match items.recv_timeout(FLUSH) {
            Ok(Item::Turn(turn)) => {
                out.line(&Line::Turn(turn))?;
                turns += 1;
                if let Some(why) = out.is_full() {
                    let incomplete = Some(why.clone());
                    out.line(&Line::End(End { turns, incomplete }))?;
                    out.out.flush()?;
                    return Err(io::Error::other(why));
                }
            }
            Ok(Item::End(end)) => {
                out.line(&Line::End(end))?;
                return out.out.flush();
            }
            Err(RecvTimeoutError::Timeout) => out.out.flush()?,
            Err(RecvTimeoutError::Disconnected) => return out.out.flush(),
        }
    }
}
