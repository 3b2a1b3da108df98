//! Market data: order books and funding.

pub mod basis;
pub mod book;
pub mod funding;

pub use basis::Basis;
pub use book::OrderBook;
pub use funding::FundingHistory;
