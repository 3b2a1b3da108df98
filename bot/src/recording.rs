//! Recordings of sessions: everything that an engine was told, the control that it saw, and what it decided.
//!
//! Decisions are pure functions of (state, event, control in force), so an engine that begins with the same and is told
//! the same decides the same: [`replay()`] feeds a recording to a new engine and compares the decisions one by one.
//!
//! A recording is a file of JSON lines: a [`Header`], a [`Turn`] for each event, and an [`End`]. There is nothing in it
//! that the bot's log may not show: no key, no token.

mod line;
mod recorder;
mod replay;

pub use self::line::{Decision, End, FORMAT, Header, Line, Seen, Turn};
pub use self::recorder::{MOST_BYTES, Recorder, WhenFull};
pub use self::replay::{Difference, Ending, Lines, ReplayError, Replayed, replay};
