//! The table of the orders.

use super::super::LedgerError;
use super::super::record::OrderRecord;
use super::connection::{Row, query};
use super::{Transaction, text};

impl Transaction<'_> {
    /// Every order, in the order in which the ledger met them.
    pub async fn orders(&mut self) -> Result<Vec<OrderRecord>, LedgerError> {
        let rows = self.all(query("SELECT * FROM orders ORDER BY rowid")).await?;
        rows.iter().map(|row| self.read_order(row)).collect()
    }

    pub(super) async fn order(&mut self, client_order_id: &str) -> Result<Option<OrderRecord>, LedgerError> {
        let select = query("SELECT * FROM orders WHERE client_order_id = $1").bind(client_order_id);
        let row = self.optional(select).await?;
        row.map(|row| self.read_order(&row)).transpose()
    }

    pub(super) async fn put_order(&mut self, order: &OrderRecord) -> Result<(), LedgerError> {
        // An upsert, not REPLACE: the rowid keeps the order in which the orders were created.
        let put = query(
            "INSERT INTO orders (client_order_id, epoch, class, product, side, size, kind, limit_price, expires_at, \
             created_at, order_id, status, filled, average_price, fees_quote, reason) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
             ON CONFLICT (client_order_id) DO UPDATE SET order_id = excluded.order_id, status = excluded.status, \
             filled = excluded.filled, average_price = excluded.average_price, fees_quote = excluded.fees_quote, \
             reason = excluded.reason",
        )
        .bind(&order.client_order_id)
        .bind(order.epoch)
        .bind(text(order.class))
        .bind(&order.product)
        .bind(order.side.to_string())
        .bind(order.size.to_string())
        .bind(&order.kind)
        .bind(text(order.limit_price))
        .bind(text(order.expires_at))
        .bind(order.created_at.to_string())
        .bind(&order.order_id)
        .bind(order.status.to_string())
        .bind(order.filled.to_string())
        .bind(order.average_price.to_string())
        .bind(order.fees_quote.to_string())
        .bind(&order.reason);
        self.execute(put).await
    }

    fn read_order(&self, row: &Row) -> Result<OrderRecord, LedgerError> {
        Ok(OrderRecord {
            client_order_id: self.column(row, "client_order_id")?,
            epoch: self.column(row, "epoch")?,
            class: self.parse_option(row, "class")?,
            product: self.column(row, "product")?,
            side: self.parse(row, "side")?,
            size: self.parse(row, "size")?,
            kind: self.column(row, "kind")?,
            limit_price: self.parse_option(row, "limit_price")?,
            expires_at: self.parse_option(row, "expires_at")?,
            created_at: self.parse(row, "created_at")?,
            order_id: self.column(row, "order_id")?,
            status: self.parse(row, "status")?,
            filled: self.parse(row, "filled")?,
            average_price: self.parse(row, "average_price")?,
            fees_quote: self.parse(row, "fees_quote")?,
            reason: self.column(row, "reason")?,
        })
    }
}
