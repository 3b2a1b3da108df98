-- Decimals, times and hashes are text: SQLite has no exact decimal, and a person can read the file with sqlite3.

-- What this ledger belongs to: one row.
CREATE TABLE binding (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    bot_uid        TEXT NOT NULL,
    execution      TEXT NOT NULL,
    venue          TEXT NOT NULL,
    portfolio      TEXT NOT NULL,
    spot_product   TEXT NOT NULL,
    future_product TEXT NOT NULL
) STRICT;

-- The claim on account and product that the operator granted last: at most one row.
CREATE TABLE claim (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    account TEXT NOT NULL,
    product TEXT NOT NULL
) STRICT;

-- Every order, as it stands. A row is there before the order is sent and is never deleted.
CREATE TABLE orders (
    client_order_id TEXT NOT NULL PRIMARY KEY,
    epoch           INTEGER NOT NULL,
    class           TEXT,
    product         TEXT NOT NULL,
    side            TEXT NOT NULL,
    size            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    limit_price     TEXT,
    expires_at      TEXT,
    created_at      TEXT NOT NULL,
    order_id        TEXT,
    status          TEXT NOT NULL,
    filled          TEXT NOT NULL,
    average_price   TEXT NOT NULL,
    fees_quote      TEXT NOT NULL,
    reason          TEXT
) STRICT;

-- Every incident; open until released_at is set.
CREATE TABLE incidents (
    id                  TEXT NOT NULL PRIMARY KEY,
    source              TEXT NOT NULL,
    action              TEXT NOT NULL,
    reason              TEXT NOT NULL,
    engaged_at          TEXT NOT NULL,
    phase               TEXT NOT NULL,
    source_engaged      INTEGER NOT NULL,
    orders_cancelled_at TEXT,
    flat_at             TEXT,
    released_at         TEXT
) STRICT;

-- The hash chain over every change of the tables above.
CREATE TABLE entries (
    n       INTEGER NOT NULL PRIMARY KEY,
    at      TEXT NOT NULL,
    kind    TEXT NOT NULL,
    payload TEXT NOT NULL,
    hash    TEXT NOT NULL
) STRICT;

PRAGMA user_version = 1;
