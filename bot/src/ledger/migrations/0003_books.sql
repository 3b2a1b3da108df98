-- The books: what the orders brought and what holding them cost. Rows are added and never changed. Amounts are in quote
-- currency, times are those of the exchange.

-- Every execution, once for each trade of each order.
CREATE TABLE fills (
    order_id        TEXT NOT NULL,
    trade_id        TEXT NOT NULL,
    client_order_id TEXT NOT NULL,
    product         TEXT NOT NULL,
    side            TEXT NOT NULL,
    size            TEXT NOT NULL,
    unit_base       TEXT NOT NULL,
    price           TEXT NOT NULL,
    fee_quote       TEXT NOT NULL,
    liquidity       TEXT NOT NULL,
    at              TEXT NOT NULL,
    PRIMARY KEY (order_id, trade_id)
) STRICT;

-- Prices at the moment an order was decided on.
CREATE TABLE decisions (
    client_order_id TEXT NOT NULL PRIMARY KEY,
    mid             TEXT NOT NULL,
    expected_price  TEXT NOT NULL
) STRICT;

-- Funding of an hour in which a position was held: an estimate, until it is settled.
CREATE TABLE funding (
    product       TEXT NOT NULL,
    hour          TEXT NOT NULL,
    contracts     TEXT NOT NULL,
    unit_base     TEXT NOT NULL,
    mark          TEXT NOT NULL,
    rate          TEXT NOT NULL,
    quality       TEXT NOT NULL,
    accrued_quote TEXT NOT NULL,
    PRIMARY KEY (product, hour)
) STRICT;

-- Funding that was paid, once for each settlement window.
CREATE TABLE settlements (
    product       TEXT NOT NULL,
    window_end    TEXT NOT NULL,
    since         TEXT,
    accrued_quote TEXT NOT NULL,
    settled_quote TEXT NOT NULL,
    booked_at     TEXT NOT NULL,
    PRIMARY KEY (product, window_end)
) STRICT;

-- Daily settlement prices of positions that were held: the exchange pays out the gain or loss up to there.
CREATE TABLE variation (
    product   TEXT NOT NULL,
    at        TEXT NOT NULL,
    price     TEXT NOT NULL,
    contracts TEXT NOT NULL,
    PRIMARY KEY (product, at)
) STRICT;

-- Money that came or went without this bot: the first row is what was there when the books began.
CREATE TABLE flows (
    at    TEXT NOT NULL PRIMARY KEY,
    quote TEXT NOT NULL
) STRICT;

-- What the bot had made by then, with the position at the middle prices of that moment.
CREATE TABLE equity (
    at            TEXT NOT NULL PRIMARY KEY,
    equity_quote  TEXT NOT NULL,
    cash_quote    TEXT NOT NULL,
    funding_quote TEXT NOT NULL,
    fees_quote    TEXT NOT NULL,
    spot_base     TEXT NOT NULL,
    spot_mid      TEXT NOT NULL,
    contracts     TEXT NOT NULL,
    future_mid    TEXT NOT NULL
) STRICT;

PRAGMA user_version = 3;
