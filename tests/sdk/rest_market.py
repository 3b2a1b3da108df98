"""Time, products, books, candles and trades, with a key and without."""

import time

from coinbase.rest import RESTClient
from exchange import BASE_URL, BIP, BTC
from rest_support import RestCase, dec, plain
import shapes


class Market(RestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # No key at all.
        cls.public = RESTClient(base_url=BASE_URL, timeout=10)

    def test_the_time_is_the_time(self):
        reply = self.shaped(self.public.get_unix_time(), shapes.TIME_REPLY)
        self.assertLess(abs(int(reply["epoch_seconds"]) - time.time()), 5)

    def test_products_are_complete_and_can_be_filtered(self):
        for get in (self.client.get_products, self.public.get_public_products):
            reply = self.shaped(get(), shapes.PRODUCTS_REPLY)
            self.assertEqual(reply["num_products"], len(reply["products"]))
            ids = lambda **query: [p["product_id"] for p in plain(get(**query))["products"]]
            everything = ids()
            self.assertEqual(ids(product_type="SPOT") + ids(product_type="FUTURE"), sorted(everything, key=lambda i: "CDE" in i))
            self.assertEqual(ids(contract_expiry_type="EXPIRING"), ids(product_type="FUTURE"))
            self.assertEqual(ids(product_ids=[BTC, BIP]), [BTC, BIP])
            self.assertEqual(ids(limit=1, offset=1), everything[1:2])

    def test_a_product_is_the_same_with_and_without_a_key(self):
        for product_id, shape in ((BTC, shapes.SPOT_PRODUCT), (BIP, shapes.FUTURE_PRODUCT)):
            private = self.shaped(self.client.get_product(product_id), shape)
            public = self.shaped(self.public.get_public_product(product_id), shape)
            for fixed in ("product_id", "price_increment", "base_min_size", "product_venue"):
                self.assertEqual(private[fixed], public[fixed])

    def test_books_are_sorted_and_can_be_aggregated(self):
        for get in (self.client.get_product_book, self.public.get_public_product_book):
            book = self.shaped(get(BTC, limit=5), shapes.BOOK_REPLY)["pricebook"]
            bids, asks = ([dec(level["price"]) for level in book[side]] for side in ("bids", "asks"))
            self.assertEqual((bids, asks), (sorted(bids, reverse=True), sorted(asks)))
            self.assertEqual((len(bids), len(asks)), (5, 5))
            self.assertLess(bids[0], asks[0])
            coarse = self.shaped(get(BTC, limit=5, aggregation_price_increment="10"), shapes.BOOK_REPLY)
            for side in ("bids", "asks"):
                for level in coarse["pricebook"][side]:
                    self.assertEqual(dec(level["price"]) % 10, 0)

    def test_best_bid_and_ask_of_the_products_asked_for(self):
        books = self.shaped(self.client.get_best_bid_ask([BTC, BIP]), shapes.BEST_REPLY)["pricebooks"]
        self.assertEqual([book["product_id"] for book in books], [BTC, BIP])
        self.assertTrue(all(len(book["bids"]) == 1 for book in books))

    def test_candles_hold_the_trades(self):
        self.buy_btc("0.001")
        now = int(time.time())
        for get in (self.client.get_candles, self.public.get_public_candles):
            for granularity in ("ONE_MINUTE", "FIVE_MINUTE", "ONE_HOUR", "ONE_DAY"):
                reply = get(BTC, str(now - 3600), str(now + 60), granularity, limit=300) \
                    if granularity != "ONE_DAY" else get(BTC, str(now - 86400), str(now + 60), granularity)
                candles = self.shaped(reply, shapes.CANDLES_REPLY)["candles"]
                self.assertTrue(candles, granularity)
                for candle in candles:
                    low, high = dec(candle["low"]), dec(candle["high"])
                    self.assertTrue(low <= dec(candle["open"]) <= high and low <= dec(candle["close"]) <= high)
                    self.assertGreater(dec(candle["volume"]), 0)

    def test_the_last_trades_are_newest_first_and_limited(self):
        bought = self.buy_btc("0.001")
        for get in (self.client.get_market_trades, self.public.get_public_market_trades):
            reply = self.shaped(get(BTC, limit=1000), shapes.TRADES_REPLY)
            numbers = [int(trade["trade_id"]) for trade in reply["trades"]]
            self.assertEqual(numbers, sorted(numbers, reverse=True))
            self.assertLess(dec(reply["best_bid"]), dec(reply["best_ask"]))
            self.assertEqual(len(plain(get(BTC, limit=2))["trades"]), 2)
        fills = plain(self.client.get_fills(order_ids=[bought["order_id"]]))["fills"]
        self.assertLessEqual({int(fill["trade_id"]) for fill in fills}, set(numbers))
