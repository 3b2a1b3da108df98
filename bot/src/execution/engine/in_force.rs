//! Where the engine reads the control in force: at the gate of a running bot, or in a recording of one.

use arbbot_crds::control::{Control, Restriction};

use crate::risk::gate::Slot;
use crate::risk::{Contact, Gate};

/// The control in force, as the engine sees it.
pub trait InForce {
    /// Control and contact now.
    fn current(&self) -> (Control, Contact);
    /// Puts in force what the state of the exchange forbids, instead of what it forbade before.
    fn restrict(&self, restrictions: Vec<Restriction>);
}

impl InForce for Gate {
    fn current(&self) -> (Control, Contact) {
        Self::current(self)
    }

    fn restrict(&self, restrictions: Vec<Restriction>) {
        self.set(Slot::Engine, restrictions);
    }
}
