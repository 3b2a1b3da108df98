//! The lines of a recording.

use std::time::Duration;

use arbbot_crds::control::{Control, Restriction};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::exchange::NewOrder;
use crate::execution::engine::{Command, Event, Now, Start};
use crate::risk::{Class, Contact};

/// What the file is, and its version: it rises with every change of a line's meaning.
/// What the first line of a recording names.
pub const FORMAT: &str = "arbbot.io/session-recording";
const VERSION: u32 = 1;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Header(Box<Header>),
    Turn(Box<Turn>),
    End(End),
}

/// The first line: which engine it is, and what it began with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
    /// Version of the program that recorded it.
    pub program: String,
    pub start: Start,
}

impl Header {
    /// The header of an engine that begins so.
    #[must_use]
    pub fn of(start: Start) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, program: env!("CARGO_PKG_VERSION").to_owned(), start }
    }

    /// Why this program cannot read the file.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("it is {:?}, not {FORMAT:?}", self.format));
        }
        let Self { version, program, .. } = self;
        (*version != VERSION).then(|| {
            format!("it has the version {version}, this program reads {VERSION}: replay it with arb-bot {program}")
        })
    }
}

/// One event, and what the engine made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    pub wall: Timestamp,
    pub event: Event,
    /// The control in force when the engine began, and after it had put its own restrictions in force; absent: both as in
    /// the turn before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<[Seen; 2]>,
    /// What the engine forbids by itself; absent: the same as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restrictions: Option<Vec<Restriction>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<Decision>,
    /// Why the strategy wants what it wants; absent: for the same reason as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Turn {
    /// When it was.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { boot: Duration::from_nanos(self.boot_ns), wall: self.wall }
    }
}

/// The control in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub control: Control,
    pub contact: Contact,
}

/// What the engine wants done: a [`Command`] without the permit, which only the gate gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Place { order: NewOrder, class: Class, epoch: i64 },
    Cancel(Vec<String>),
    Query(String),
    Snapshot { since: Option<Timestamp> },
    Record(String),
    Fees,
    Funding { hour: Timestamp, rate: Decimal },
}

impl From<&Command> for Decision {
    fn from(command: &Command) -> Self {
        match command {
            Command::Place { permit, epoch } => {
                Self::Place { order: permit.order().clone(), class: permit.class(), epoch: *epoch }
            }
            Command::Cancel(ids) => Self::Cancel(ids.clone()),
            Command::Query(id) => Self::Query(id.clone()),
            Command::Snapshot { since } => Self::Snapshot { since: *since },
            Command::Record(id) => Self::Record(id.clone()),
            Command::Fees => Self::Fees,
            Command::Funding { hour, rate } => Self::Funding { hour: *hour, rate: *rate },
        }
    }
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub turns: u64,
    /// Why turns after these are missing; None: the bot ended.
    pub incomplete: Option<String>,
}
