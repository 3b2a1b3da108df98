-- Funding rate of every hour that the exchange showed, whether a position was held or not: the exchange has no history.
CREATE TABLE funding_rates (
    product TEXT NOT NULL,
    hour    TEXT NOT NULL,
    rate    TEXT NOT NULL,
    PRIMARY KEY (product, hour)
) STRICT;

PRAGMA user_version = 4;
