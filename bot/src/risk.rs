//! Risk: the one gate of the order path, the limits, and the exposure they are measured against.

pub mod exposure;
pub mod gate;
pub mod guards;
pub mod limits;

pub use gate::{Class, Cleared, Contact, Denied, Gate, Permit, Slot};
pub use limits::{Exposure, admit, admit_alone};
