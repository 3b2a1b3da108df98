//! Feeds a recording to an engine and compares what it decides.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};

use arbbot_crds::control::{Control, Restriction};
use k8s_openapi::jiff::Timestamp;

use super::line::{Decision, End, Header, Line, Seen, Turn};
use crate::execution::engine::{Engine, InForce};
use crate::risk::Contact;

/// Longest line: a listing of all orders of a day is far smaller.
const MAX_LINE: u64 = 64 << 20;

/// Why a recording was not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the recording cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("line {line} is not of a recording of a session: {cause}")]
    Line { line: u64, cause: String },
    #[error("{0}")]
    Differs(Box<Difference>),
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("turn {turn} (line {line}, {wall}) differs in {what}:\n  recorded: {recorded}\n  replayed: {replayed}")]
pub struct Difference {
    pub turn: u64,
    pub line: u64,
    pub wall: Timestamp,
    pub what: &'static str,
    pub recorded: String,
    pub replayed: String,
}

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the bot.
    Whole,
    /// Before the bot, and why.
    Incomplete(String),
    /// Without a last line: the bot was killed.
    Cut,
}

/// A recording that was replayed to identical decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub turns: u64,
    pub orders: u64,
    pub cancels: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    pub ending: Ending,
}

/// The lines of a recording, one after the other. What follows the last line's end was cut off.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    /// Number of the last line.
    pub number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no recording, or none that this program can read.
    pub fn open(from: R) -> Result<(Header, Self), ReplayError> {
        let mut lines = Self { from, number: 0 };
        match lines.next_line()? {
            Some(Line::Header(header)) => match header.problem() {
                Some(cause) => Err(ReplayError::Line { line: 1, cause }),
                None => Ok((*header, lines)),
            },
            _ => Err(ReplayError::Line { line: 1, cause: "it has no header".to_owned() }),
        }
    }

    /// The next line; None at the end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReplayError> {
        let mut text = Vec::new();
        (&mut self.from).take(MAX_LINE).read_until(b'\n', &mut text)?;
        if text.last() != Some(&b'\n') && (text.len() as u64) < MAX_LINE {
            return Ok(None);
        }
        self.number += 1;
        let wrong = |error: serde_json::Error| ReplayError::Line { line: self.number, cause: error.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(wrong)
    }
}

/// Feeds the recorded turns to an engine that begins as the recorded one did.
///
/// # Errors
/// It is no recording, it cannot be read, or a decision is another one.
pub fn replay(recording: impl BufRead) -> Result<Replayed, ReplayError> {
    let (header, mut lines) = Lines::open(recording)?;
    let mut replay = Replay {
        engine: header.start.engine(),
        seen: None,
        restrictions: Vec::new(),
        why: String::new(),
        done: Replayed { turns: 0, orders: 0, cancels: 0, first: None, last: None, ending: Ending::Cut },
    };
    loop {
        match lines.next_line()? {
            None => return Ok(replay.done),
            Some(Line::Turn(turn)) => replay.turn(*turn, lines.number)?,
            Some(Line::End(end)) => return replay.end(end, lines.number),
            Some(Line::Header(_)) => {
                return Err(ReplayError::Line { line: lines.number, cause: "it is a second header".to_owned() });
            }
        }
    }
}

struct Replay {
    engine: Engine,
    seen: Option<[Seen; 2]>,
    restrictions: Vec<Restriction>,
    why: String,
    done: Replayed,
}

impl Replay {
    fn turn(&mut self, turn: Turn, line: u64) -> Result<(), ReplayError> {
        let now = turn.now();
        self.seen = turn.seen.or(self.seen.take());
        let cause = || "it does not say which control was in force".to_owned();
        let seen = self.seen.as_ref().ok_or_else(|| ReplayError::Line { line, cause: cause() })?;
        if let Some(restrictions) = turn.restrictions {
            self.restrictions = restrictions;
        }
        if let Some(why) = turn.why {
            self.why = why;
        }
        let recorded = Recorded { seen, looked: Cell::new(0), restrictions: RefCell::default() };
        let commands = self.engine.handle(turn.event, &recorded, now);
        let restrictions = recorded.restrictions.into_inner();
        let decided: Vec<Decision> = commands.iter().map(Decision::from).collect();
        self.done.turns += 1;
        let differs = |what, recorded: String, replayed: String| {
            let turn = self.done.turns;
            Err(ReplayError::Differs(Box::new(Difference { turn, line, wall: now.wall, what, recorded, replayed })))
        };
        if decided != turn.decided {
            return differs("decisions", as_text(&turn.decided), as_text(&decided));
        }
        if restrictions != self.restrictions {
            return differs("what the engine forbids", as_text(&self.restrictions), as_text(&restrictions));
        }
        if self.engine.why() != self.why {
            return differs("why", self.why.clone(), self.engine.why().to_owned());
        }
        for decision in &decided {
            match decision {
                Decision::Place { .. } => self.done.orders += 1,
                Decision::Cancel(ids) => self.done.cancels += ids.len() as u64,
                _ => {}
            }
        }
        self.done.first = self.done.first.or(Some(now.wall));
        self.done.last = Some(now.wall);
        Ok(())
    }

    fn end(mut self, end: End, line: u64) -> Result<Replayed, ReplayError> {
        if end.turns != self.done.turns {
            let cause = format!("it says that there are {} turns; {} are there", end.turns, self.done.turns);
            return Err(ReplayError::Line { line, cause });
        }
        self.done.ending = end.incomplete.map_or(Ending::Whole, Ending::Incomplete);
        Ok(self.done)
    }
}

fn as_text<T: serde::Serialize>(value: &[T]) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The control that was in force then.
struct Recorded<'a> {
    seen: &'a [Seen; 2],
    looked: Cell<usize>,
    restrictions: RefCell<Vec<Restriction>>,
}

impl InForce for Recorded<'_> {
    fn current(&self) -> (Control, Contact) {
        let [before, after] = self.seen;
        let seen = if self.looked.replace(1) == 0 { before } else { after };
        (seen.control.clone(), seen.contact)
    }

    fn restrict(&self, restrictions: Vec<Restriction>) {
        *self.restrictions.borrow_mut() = restrictions;
    }
}
