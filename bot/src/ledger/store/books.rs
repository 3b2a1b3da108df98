//! The tables of the books: rows are added, and a second one under the same key changes nothing.

use super::super::LedgerError;
use super::super::posting::{
    Books, DecisionRecord, EquityRecord, FillRecord, FlowRecord, FundingRecord, Posting, SettlementRecord,
    VariationRecord,
};
use super::connection::{Query, Row, query};
use super::{Transaction, failed, text};

impl Transaction<'_> {
    /// Adds what is not there yet. Whether anything was not.
    pub(super) async fn post(&mut self, postings: &[Posting]) -> Result<bool, LedgerError> {
        let mut added = 0;
        for posting in postings {
            added += self.count(insert(posting)).await?;
        }
        Ok(added > 0)
    }

    async fn count(&mut self, query: Query) -> Result<u64, LedgerError> {
        self.sql.execute(query).await.map_err(|cause| failed(&self.source, "write", cause))
    }

    /// Everything that was posted.
    pub async fn books(&mut self) -> Result<Books, LedgerError> {
        if !self.has_table("fills").await? {
            return Ok(Books::default());
        }
        let decisions = self.table("SELECT * FROM decisions", Self::read_decision).await?;
        let mut books = Books {
            fills: self.table("SELECT * FROM fills", Self::read_fill).await?,
            decisions: decisions.into_iter().map(|decision| (decision.client_order_id.clone(), decision)).collect(),
            funding: self.table("SELECT * FROM funding", Self::read_funding).await?,
            settlements: self.table("SELECT * FROM settlements", Self::read_settlement).await?,
            variation: self.table("SELECT * FROM variation", Self::read_variation).await?,
            flows: self.table("SELECT * FROM flows", Self::read_flow).await?,
            equity: self.table("SELECT * FROM equity", Self::read_equity).await?,
        };
        books.sort();
        Ok(books)
    }

    /// The fills of one order.
    pub async fn fills_of(&mut self, order_id: &str) -> Result<Vec<FillRecord>, LedgerError> {
        let rows = self.all(query("SELECT * FROM fills WHERE order_id = $1").bind(order_id)).await?;
        rows.iter().map(|row| self.read_fill(row)).collect()
    }

    async fn table<T>(
        &mut self,
        select: &'static str,
        read: fn(&Self, &Row) -> Result<T, LedgerError>,
    ) -> Result<Vec<T>, LedgerError> {
        let rows = self.all(query(select)).await?;
        rows.iter().map(|row| read(self, row)).collect()
    }

    fn read_fill(&self, row: &Row) -> Result<FillRecord, LedgerError> {
        Ok(FillRecord {
            order_id: self.column(row, "order_id")?,
            trade_id: self.column(row, "trade_id")?,
            client_order_id: self.column(row, "client_order_id")?,
            product: self.column(row, "product")?,
            side: self.parse(row, "side")?,
            size: self.parse(row, "size")?,
            unit_base: self.parse(row, "unit_base")?,
            price: self.parse(row, "price")?,
            fee_quote: self.parse(row, "fee_quote")?,
            liquidity: self.parse(row, "liquidity")?,
            at: self.parse(row, "at")?,
        })
    }

    fn read_decision(&self, row: &Row) -> Result<DecisionRecord, LedgerError> {
        Ok(DecisionRecord {
            client_order_id: self.column(row, "client_order_id")?,
            mid: self.parse(row, "mid")?,
            expected_price: self.parse(row, "expected_price")?,
        })
    }

    fn read_funding(&self, row: &Row) -> Result<FundingRecord, LedgerError> {
        Ok(FundingRecord {
            product: self.column(row, "product")?,
            hour: self.parse(row, "hour")?,
            contracts: self.parse(row, "contracts")?,
            unit_base: self.parse(row, "unit_base")?,
            mark: self.parse(row, "mark")?,
            rate: self.parse(row, "rate")?,
            quality: self.parse(row, "quality")?,
            accrued_quote: self.parse(row, "accrued_quote")?,
        })
    }

    fn read_settlement(&self, row: &Row) -> Result<SettlementRecord, LedgerError> {
        Ok(SettlementRecord {
            product: self.column(row, "product")?,
            window_end: self.parse(row, "window_end")?,
            since: self.parse_option(row, "since")?,
            accrued_quote: self.parse(row, "accrued_quote")?,
            settled_quote: self.parse(row, "settled_quote")?,
            booked_at: self.parse(row, "booked_at")?,
        })
    }

    fn read_variation(&self, row: &Row) -> Result<VariationRecord, LedgerError> {
        Ok(VariationRecord {
            product: self.column(row, "product")?,
            at: self.parse(row, "at")?,
            price: self.parse(row, "price")?,
            contracts: self.parse(row, "contracts")?,
        })
    }

    fn read_flow(&self, row: &Row) -> Result<FlowRecord, LedgerError> {
        Ok(FlowRecord { at: self.parse(row, "at")?, quote: self.parse(row, "quote")? })
    }

    fn read_equity(&self, row: &Row) -> Result<EquityRecord, LedgerError> {
        Ok(EquityRecord {
            at: self.parse(row, "at")?,
            equity_quote: self.parse(row, "equity_quote")?,
            cash_quote: self.parse(row, "cash_quote")?,
            funding_quote: self.parse(row, "funding_quote")?,
            fees_quote: self.parse(row, "fees_quote")?,
            spot_base: self.parse(row, "spot_base")?,
            spot_mid: self.parse(row, "spot_mid")?,
            contracts: self.parse(row, "contracts")?,
            future_mid: self.parse(row, "future_mid")?,
        })
    }
}

/// The row of a posting, unless there is one under its key.
fn insert(posting: &Posting) -> Query {
    match posting {
        Posting::Fill(fill) => query(
            "INSERT INTO fills (order_id, trade_id, client_order_id, product, side, size, unit_base, price, fee_quote, \
             liquidity, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        )
        .bind(&fill.order_id)
        .bind(&fill.trade_id)
        .bind(&fill.client_order_id)
        .bind(&fill.product)
        .bind(fill.side.to_string())
        .bind(fill.size.to_string())
        .bind(fill.unit_base.to_string())
        .bind(fill.price.to_string())
        .bind(fill.fee_quote.to_string())
        .bind(fill.liquidity.to_string())
        .bind(fill.at.to_string()),
        Posting::Decision(decision) => query(
            "INSERT INTO decisions (client_order_id, mid, expected_price) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(&decision.client_order_id)
        .bind(decision.mid.to_string())
        .bind(decision.expected_price.to_string()),
        Posting::Funding(hour) => query(
            "INSERT INTO funding (product, hour, contracts, unit_base, mark, rate, quality, accrued_quote) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(&hour.product)
        .bind(hour.hour.to_string())
        .bind(hour.contracts.to_string())
        .bind(hour.unit_base.to_string())
        .bind(hour.mark.to_string())
        .bind(hour.rate.to_string())
        .bind(hour.quality.to_string())
        .bind(hour.accrued_quote.to_string()),
        Posting::Settlement(settlement) => query(
            "INSERT INTO settlements (product, window_end, since, accrued_quote, settled_quote, booked_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(&settlement.product)
        .bind(settlement.window_end.to_string())
        .bind(text(settlement.since))
        .bind(settlement.accrued_quote.to_string())
        .bind(settlement.settled_quote.to_string())
        .bind(settlement.booked_at.to_string()),
        Posting::Variation(variation) => query(
            "INSERT INTO variation (product, at, price, contracts) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(&variation.product)
        .bind(variation.at.to_string())
        .bind(variation.price.to_string())
        .bind(variation.contracts.to_string()),
        Posting::Flow(flow) => query("INSERT INTO flows (at, quote) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(flow.at.to_string())
            .bind(flow.quote.to_string()),
        Posting::Equity(equity) => query(
            "INSERT INTO equity (at, equity_quote, cash_quote, funding_quote, fees_quote, spot_base, spot_mid, \
             contracts, future_mid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        )
        .bind(equity.at.to_string())
        .bind(equity.equity_quote.to_string())
        .bind(equity.cash_quote.to_string())
        .bind(equity.funding_quote.to_string())
        .bind(equity.fees_quote.to_string())
        .bind(equity.spot_base.to_string())
        .bind(equity.spot_mid.to_string())
        .bind(equity.contracts.to_string())
        .bind(equity.future_mid.to_string()),
    }
}
