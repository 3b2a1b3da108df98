//! The id that the bot gives an order.

use crate::risk::Class;

/// The parts of a client order id: `<uid8>-<epoch>-<sequence>-<class>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOrderId {
    pub epoch: i64,
    pub sequence: u64,
    pub class: Class,
}

/// Mints a client order id.
#[must_use]
pub fn mint_id(uid8: &str, epoch: i64, sequence: u64, class: Class) -> String {
    format!("{uid8}-{epoch}-{sequence}-{class}")
}

/// Reads the parts of a client order id of any bot.
#[must_use]
pub fn parse_id(id: &str) -> Option<ClientOrderId> {
    let mut parts = id.split('-').skip(1);
    let epoch = parts.next()?.parse().ok()?;
    let sequence = parts.next()?.parse().ok()?;
    let class = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(ClientOrderId { epoch, sequence, class })
}

/// Whether a bot may have given an order this id.
#[must_use]
pub fn of_a_bot(id: &str) -> bool {
    let uid8 = id.split('-').next().unwrap_or_default();
    uid8.len() == 8 && uid8.bytes().all(|byte| byte.is_ascii_hexdigit()) && parse_id(id).is_some()
}
