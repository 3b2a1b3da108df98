//! Market data: order books.

pub mod book;

pub use book::OrderBook;
