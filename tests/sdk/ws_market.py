"""The public channels, through the SDK's typed classes."""

from decimal import Decimal

from exchange import BIP, BTC, TestCase, admin, market_feed

TICKER = {
    "type", "product_id", "price", "volume_24_h", "low_24_h", "high_24_h", "low_52_w", "high_52_w",
    "price_percent_chg_24_h", "best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity",
}
STATUS = {
    "product_type", "id", "base_currency", "quote_currency", "base_increment", "quote_increment", "display_name",
    "status", "status_message", "min_market_funds",
}


class Market(TestCase):
    def fields(self, typed, names):
        """Every documented field is there, as a string."""
        fields = typed.to_dict()
        self.assertEqual(set(fields), set(names))
        for name, value in fields.items():
            self.assertIsInstance(value, str, name)

    def test_a_book_kept_from_level2_is_complete_and_never_crossed(self):
        with market_feed() as feed:
            feed.client.level2([BIP])
            book, updates = {}, 0
            while updates < 30:
                message = feed.channel("l2_data")
                for event in message.events:
                    self.assertEqual(event.product_id, BIP)
                    if event.type == "snapshot":
                        book.clear()
                    updates += event.type == "update"
                    for level in event.updates:
                        self.fields(level, ["side", "event_time", "price_level", "new_quantity"])
                        place = (level.side, Decimal(level.price_level))
                        if Decimal(level.new_quantity) == 0:
                            book.pop(place, None)
                        else:
                            book[place] = Decimal(level.new_quantity)
                bids = [price for side, price in book if side == "bid"]
                offers = [price for side, price in book if side == "offer"]
                self.assertEqual(len(bids) + len(offers), len(book))
                self.assertLess(max(bids), min(offers))

    def test_a_ticker_follows_each_trade(self):
        with market_feed() as feed:
            feed.client.ticker([BTC, BIP])
            for kind in ["snapshot", "update"]:
                ticker = feed.channel("ticker", kind).events[0].tickers[0]
                self.fields(ticker, TICKER)
                self.assertIn(ticker.product_id, [BTC, BIP])
                self.assertLess(Decimal(ticker.best_bid), Decimal(ticker.best_ask))

    def test_ticker_batch_says_the_same_every_five_seconds(self):
        with market_feed() as feed:
            feed.client.ticker_batch([BTC])
            self.fields(feed.channel("ticker_batch", "snapshot").events[0].tickers[0], TICKER)
            self.fields(feed.channel("ticker_batch", "update").events[0].tickers[0], TICKER)

    def test_market_trades_arrive_each_once(self):
        with market_feed() as feed:
            feed.client.market_trades([BTC])
            names = ["product_id", "trade_id", "price", "size", "time", "side"]
            seen = [trade.trade_id for trade in feed.channel("market_trades", "snapshot").events[0].trades]
            for _ in range(5):
                for trade in feed.channel("market_trades", "update").events[0].trades:
                    self.fields(trade, names)
                    self.assertIn(trade.side, ["BUY", "SELL"])
                    seen.append(trade.trade_id)
            self.assertEqual(len(seen), len(set(seen)))

    def test_candles_of_five_minutes(self):
        with market_feed() as feed:
            feed.client.market_trades([BTC])
            feed.channel("market_trades", "update")
            feed.client.candles([BTC])
            for kind in ["snapshot", "update"]:
                candle = feed.channel("candles", kind).events[0].candles[0]
                self.fields(candle, ["start", "high", "low", "open", "close", "volume", "product_id"])
                self.assertEqual(int(candle.start) % 300, 0)
                low, high = Decimal(candle.low), Decimal(candle.high)
                self.assertTrue(low <= Decimal(candle.open) <= high and low <= Decimal(candle.close) <= high)

    def test_status_tells_of_every_product_and_of_a_closed_session(self):
        with market_feed() as feed:
            feed.client.status([])
            seen = {feed.channel("status", "snapshot").events[0].products[0].id for _ in range(4)}
            self.assertTrue({BTC, BIP} <= seen)
            admin("POST", "/faults", {"kind": "session_closed", "product_id": BIP, "seconds": 60})
            try:
                of_bip = lambda m: m.channel == "status" and m.events[0].products[0].id == BIP
                product = feed.until(lambda m: of_bip(m) and m.events[0].products[0].status != "online")
                self.fields(product.events[0].products[0], STATUS)
            finally:
                admin("POST", "/faults", {"clear": True})
