-- Every trip of a guard; under way until ended_at is set.
CREATE TABLE guard_trips (
    guard      TEXT NOT NULL,
    tripped_at TEXT NOT NULL,
    metric     TEXT NOT NULL,
    action     TEXT NOT NULL,
    value      TEXT NOT NULL,
    threshold  TEXT NOT NULL,
    incident   TEXT,
    ended_at   TEXT,
    PRIMARY KEY (guard, tripped_at)
) STRICT;

-- Highest equity of each five minutes of the last day, for the guards of a loss. A figure, not a fact: not in the chain.
CREATE TABLE guard_equity (
    at           TEXT NOT NULL PRIMARY KEY,
    equity_quote TEXT NOT NULL
) STRICT;

PRAGMA user_version = 2;
