"""Placed, listed, filled, in the balance: the effect of a call shows in later calls. And pages and filters."""

from exchange import BIP, BTC, new_id
from rest_support import Paced, RestCase, dec, later, near, plain
import shapes


class Effects(RestCase):
    def test_a_spot_order_is_placed_listed_filled_and_in_the_balance(self):
        usd, (_, btc) = self.usd(), self.balance("BTC")
        client_order_id = new_id()
        reply = self.client.market_order_buy(client_order_id, BTC, base_size="0.01")
        order_id = self.shaped(reply, shapes.PLACED_REPLY)["success_response"]["order_id"]
        order = self.becomes(order_id, "FILLED")
        listed = self.shaped(self.client.list_orders(product_ids=[BTC], order_status=["FILLED"]), shapes.ORDERS_REPLY)
        self.assertEqual(listed["orders"][0]["client_order_id"], client_order_id)
        fills = self.shaped(self.client.get_fills(order_ids=[order_id]), shapes.FILLS_REPLY)["fills"]
        value = sum(dec(f["price"]) * dec(f["size"]) for f in fills)
        fees = sum(dec(f["commission"]) for f in fills)
        self.assertEqual(sum(dec(f["size"]) for f in fills), dec("0.01"))
        self.assertEqual((dec(order["filled_value"]), dec(order["total_fees"])), (value, fees))
        self.assertEqual(int(order["number_of_fills"]), len(fills))
        self.assertEqual(self.balance("BTC")[1], btc + dec("0.01"))
        # Both balances and the fee of each fill are rounded to eight decimals.
        rounded = dec("0.00000001") * (1 + len(fills))
        self.assertLessEqual(abs(self.usd() - (usd - value - fees)), rounded)

    def test_a_futures_order_becomes_a_position_and_closing_it_pays(self):
        self.flat()
        usd = self.usd()
        reply = plain(self.client.market_order_sell(new_id(), BIP, base_size="3"))
        sold = self.becomes(reply["success_response"]["order_id"], "FILLED")
        position = self.shaped(self.client.get_futures_position(BIP), shapes.POSITION_REPLY)["position"]
        self.assertEqual((position["side"], dec(position["number_of_contracts"])), ("SHORT", 3))
        self.assertEqual(dec(position["avg_entry_price"]), dec(sold["average_filled_price"]))
        summary = self.shaped(self.client.get_futures_balance_summary(), shapes.BALANCE_SUMMARY_REPLY)["balance_summary"]
        self.assertGreater(dec(summary["initial_margin"]["value"]), 0)

        part = self.shaped(self.client.close_position(new_id(), BIP, "1"), shapes.PLACED_REPLY)
        self.becomes(part["success_response"]["order_id"], "FILLED")
        self.assertEqual(plain(self.client.get_futures_position(BIP))["position"]["number_of_contracts"], "2")
        rest = plain(self.client.close_position(new_id(), BIP))["success_response"]["order_id"]
        self.becomes(rest, "FILLED")
        self.assertEqual(self.shaped(self.client.list_futures_positions(), shapes.POSITIONS_REPLY)["positions"], [])
        ids = [sold["order_id"], part["success_response"]["order_id"], rest]
        fills = plain(self.client.get_fills(order_ids=ids))["fills"]
        sign = lambda f: 1 if f["side"] == "SELL" else -1
        gained = sum(sign(f) * dec(f["price"]) * dec(f["size"]) * dec("0.01") - dec(f["commission"]) for f in fills)
        self.assertAlmostEqual(self.usd(), usd + gained, places=6)
        refused = self.shaped(self.client.close_position(new_id(), BIP), shapes.REFUSED_REPLY)["error_response"]
        self.assertEqual(refused["error"], "CANNOT_CLOSE_ZERO_POSITION")

    def test_a_stop_is_triggered_by_the_price(self):
        from exchange import admin

        self.buy_btc("0.01")
        bid, _ = self.prices()
        stop = self.client.stop_limit_order_gtc_sell(
            new_id(), BTC, "0.01", near(bid, -8), near(bid, -1), "STOP_DIRECTION_STOP_DOWN")
        order_id = self.shaped(stop, shapes.PLACED_REPLY)["success_response"]["order_id"]
        self.assertEqual(self.order(order_id)["trigger_status"], "STOP_PENDING")
        admin("POST", "/faults", {"kind": "price_gap", "bps": -200, "product_id": BTC})
        try:
            order = self.becomes(order_id, "FILLED")
            self.assertEqual(order["trigger_status"], "STOP_TRIGGERED")
            self.assertLess(dec(order["average_filled_price"]), dec(near(bid, -1)))
        finally:
            admin("POST", "/faults", {"kind": "price_gap", "bps": 204, "product_id": BTC})


class Lists(RestCase):
    """With the second account, whose orders nobody else places."""

    @classmethod
    def setUpClass(cls):
        cls.client = Paced("1")
        bid, ask = cls().prices()
        cls.ids = []
        for i in range(5):
            reply = plain(cls.client.limit_order_gtc_buy(new_id(), BTC, "0.001", near(bid, -3 - i)))
            cls.ids.append(reply["success_response"]["order_id"])
        for _ in range(3):
            reply = plain(cls.client.market_order_buy(new_id(), BTC, base_size="0.001"))
            cls.ids.append(reply["success_response"]["order_id"])

    @classmethod
    def tearDownClass(cls):
        cls.client.cancel_orders(cls.ids[:5])

    def runTest(self):
        """Lets setUpClass use the helpers of an instance."""

    def listed(self, **query):
        return [o["order_id"] for o in self.shaped(self.client.list_orders(**query), shapes.ORDERS_REPLY)["orders"]]

    def test_pages_join_to_the_whole_list(self):
        whole, paged, cursor = self.listed(), [], None
        while True:
            page = self.shaped(self.client.list_orders(limit=3, cursor=cursor), shapes.ORDERS_REPLY)
            paged += [o["order_id"] for o in page["orders"]]
            cursor = page["cursor"]
            if not page["has_next"]:
                break
            self.assertEqual(len(page["orders"]), 3)
        self.assertEqual(paged, whole)
        self.assertEqual(whole[:8], self.ids[::-1])

    def test_filters_choose_orders(self):
        self.assertEqual(self.listed(order_status=["OPEN"]), self.ids[4::-1])
        self.assertEqual(self.listed(order_types=["MARKET"])[:3], self.ids[:4:-1])
        self.assertEqual(self.listed(time_in_forces=["GOOD_UNTIL_CANCELLED"], asset_filters=["BTC"])[:5], self.ids[4::-1])
        self.assertEqual(self.listed(order_side="SELL", product_ids=[BTC]), [])
        self.assertEqual(self.listed(contract_expiry_type="EXPIRING", product_type="FUTURE"), [])
        self.assertEqual(self.listed(start_date=later(60)), [])
        self.assertEqual(self.listed(end_date=later(-3600)), [])
        self.assertEqual(self.listed(order_placement_source="RETAIL_ADVANCED", product_type="SPOT"), self.listed())
        self.assertEqual(self.listed(order_ids=self.ids[:2]), self.ids[1::-1])
        dear_first = self.listed(sort_by="LIMIT_PRICE", order_status=["OPEN"])
        self.assertEqual(dear_first, self.ids[:5])

    def test_fills_come_in_pages_and_can_be_filtered(self):
        whole = self.shaped(self.client.get_fills(), shapes.FILLS_REPLY)["fills"]
        paged, cursor = [], None
        while cursor != "":
            page = self.shaped(self.client.get_fills(limit=1, cursor=cursor), shapes.FILLS_REPLY)
            paged += page["fills"]
            cursor = page["cursor"]
        self.assertEqual(paged, whole)
        first = whole[0]
        one = plain(self.client.get_fills(trade_ids=[first["trade_id"]], product_ids=[BTC]))["fills"]
        self.assertEqual(one, [first])
        self.assertEqual(plain(self.client.get_fills(start_sequence_timestamp=later(60)))["fills"], [])
        self.assertEqual(plain(self.client.get_fills(end_sequence_timestamp=later(-3600)))["fills"], [])
        prices = [dec(f["price"]) for f in plain(self.client.get_fills(sort_by="PRICE"))["fills"]]
        self.assertEqual(prices, sorted(prices, reverse=True))
