"""The private channels: an order's life, positions and the futures balance, through the SDK's typed classes."""

import time
from decimal import Decimal

from exchange import BIP, BTC, TestCase, new_id, rest, user_feed

ORDER = {
    "avg_price", "cancel_reason", "client_order_id", "completion_percentage", "contract_expiry_type",
    "cumulative_quantity", "filled_value", "leaves_quantity", "limit_price", "number_of_fills", "order_id",
    "order_side", "order_type", "outstanding_hold_amount", "post_only", "product_id", "product_type", "reject_reason",
    "retail_portfolio_id", "risk_managed_by", "status", "stop_price", "time_in_force", "total_fees",
    "total_value_after_fees", "trigger_status", "creation_time", "end_time", "start_time",
}
POSITION = {"product_id", "side", "number_of_contracts", "realized_pnl", "unrealized_pnl", "entry_price"}
SUMMARY = {
    "futures_buying_power", "total_usd_balance", "cbi_usd_balance", "cfm_usd_balance",
    "total_open_orders_hold_amount", "unrealized_pnl", "daily_realized_pnl", "initial_margin", "available_margin",
    "liquidation_threshold", "liquidation_buffer_amount", "liquidation_buffer_percentage",
}
MEASURE = {
    "margin_window_type", "margin_level", "initial_margin", "maintenance_margin", "liquidation_buffer_percentage",
    "total_hold", "futures_buying_power",
}


class User(TestCase):
    def setUp(self):
        self.rest = rest()
        self.addCleanup(self.clean)

    def clean(self):
        for order in self.rest.list_orders(order_status=["OPEN"]).orders or []:
            self.rest.cancel_orders([order.order_id])
        for position in self.rest.list_futures_positions().positions or []:
            self.rest.close_position(new_id(), position.product_id)

    def resting(self, price="50000"):
        name = new_id()
        reply = self.rest.limit_order_gtc_buy(name, BTC, "0.01", price, post_only=True)
        self.assertTrue(reply.success, reply)
        return name, reply.success_response["order_id"]

    def order(self, feed, name, status):
        """The order in the first message in which it has this status."""
        of = lambda m: [o for e in m.events for o in (e.orders or []) if o.client_order_id == name and o.status == status]
        return of(feed.until(lambda m: m.channel == "user" and of(m)))[0]

    def test_an_orders_whole_life(self):
        before, _ = self.resting()
        with user_feed() as feed:
            feed.client.user([])
            snapshot = feed.channel("user", "snapshot").events[0]
            self.assertIn(before, [order.client_order_id for order in snapshot.orders])

            name, order_id = self.resting()
            opened = self.order(feed, name, "OPEN")
            self.assertTrue(ORDER <= set(opened.to_dict()), ORDER - set(opened.to_dict()))
            for field in ORDER:
                self.assertIsInstance(opened[field], str, field)
            self.assertEqual((opened.order_id, opened.order_side), (order_id, "BUY"))
            self.assertEqual((Decimal(opened.leaves_quantity), Decimal(opened.cumulative_quantity)), (Decimal("0.01"), 0))
            self.assertGreater(Decimal(opened.outstanding_hold_amount), 500)

            self.rest.cancel_orders([order_id])
            cancelled = self.order(feed, name, "CANCELLED")
            self.assertEqual((cancelled.leaves_quantity, cancelled.outstanding_hold_amount), ("0", "0"))

    def test_a_fill_shows_in_order_and_position(self):
        with user_feed() as feed:
            feed.client.user([BIP])
            feed.channel("user", "snapshot")
            name = new_id()
            self.assertTrue(self.rest.market_order_sell(name, BIP, base_size="3").success)
            filled = self.order(feed, name, "FILLED")
            self.assertEqual((filled.cumulative_quantity, filled.leaves_quantity), ("3", "0"))
            self.assertEqual(Decimal(filled.completion_percentage), 100)
            self.assertGreaterEqual(int(filled.number_of_fills), 1)
            self.assertGreater(Decimal(filled.total_fees), 0)
            last = [frame for frame in feed.raw if frame.get("channel") == "user"][-1]
            position = last["events"][0]["positions"]["expiring_futures_positions"][0]
            self.assertEqual(set(position), POSITION)
            self.assertEqual((position["side"].upper(), position["number_of_contracts"]), ("SHORT", "3"))

    def test_a_stop_order_shows_its_stop_price_until_it_is_cancelled(self):
        with user_feed() as feed:
            feed.client.user([])
            feed.channel("user", "snapshot")
            name, direction = new_id(), "STOP_DIRECTION_STOP_UP"
            reply = self.rest.stop_limit_order_gtc_buy(name, BTC, "0.01", "91000", "90000", direction)
            self.assertTrue(reply.success, reply)
            opened = self.order(feed, name, "OPEN")
            shown = (opened.order_type, opened.stop_price, opened.limit_price, opened.trigger_status)
            self.assertEqual(shown, ("Stop Limit", "90000", "91000", "STOP_PENDING"))
            self.rest.cancel_orders([opened.order_id])
            self.order(feed, name, "CANCELLED")

    def test_an_ed25519_key_hears_the_same(self):
        ed25519 = rest("ed25519")
        with user_feed("ed25519") as feed:
            feed.client.user([])
            feed.channel("user", "snapshot")
            name = new_id()
            reply = ed25519.limit_order_gtc_buy(name, BTC, "0.01", "50000", post_only=True)
            self.assertTrue(reply.success, reply)
            self.assertEqual(self.order(feed, name, "OPEN").order_id, reply.success_response["order_id"])

    def test_only_orders_of_the_named_products_are_told(self):
        with user_feed() as feed:
            feed.client.user([BIP])
            feed.client.heartbeats()
            feed.channel("user", "snapshot")
            self.resting()
            name = new_id()
            self.rest.market_order_sell(name, BIP, base_size="1")
            self.order(feed, name, "FILLED")
            orders = [o for f in feed.raw if f.get("channel") == "user" for e in f["events"] for o in e["orders"]]
            self.assertEqual({order["product_id"] for order in orders}, {BIP})

    def test_a_snapshot_of_many_orders_comes_in_batches_of_fifty(self):
        other = rest("1")
        names = {new_id() for _ in range(60)}
        for number, name in enumerate(sorted(names)):
            reply = other.limit_order_gtc_buy(name, BTC, "0.001", str(40000 + number), post_only=True)
            self.assertTrue(reply.success, reply)
            if number % 20 == 19:
                time.sleep(1)  # below the limit of requests per second
        try:
            with user_feed("1") as feed:
                feed.client.user([])
                batches = [feed.channel("user", "snapshot").events[0].orders for _ in range(2)]
                self.assertEqual([len(batch) for batch in batches], [50, 10])
                self.assertEqual({order.client_order_id for batch in batches for order in batch}, names)
        finally:
            ids = [order.order_id for order in other.list_orders(order_status=["OPEN"], limit=100).orders]
            other.cancel_orders(ids)

    def test_no_other_portfolios_orders_are_told(self):
        with user_feed("1") as feed:
            feed.client.user([])
            feed.client.heartbeats()
            feed.channel("user", "snapshot")
            name, _ = self.resting()
            feed.channel("heartbeats")
            feed.channel("heartbeats")
            self.assertNotIn(name, str(feed.raw))

    def test_the_futures_balance_follows_a_position(self):
        with user_feed() as feed:
            feed.client.futures_balance_summary()
            before = feed.channel("futures_balance_summary", "snapshot").events[0].fcm_balance_summary
            for field in SUMMARY:
                self.assertIsInstance(before[field], str, field)
            for window in ["intraday_margin_window_measure", "overnight_margin_window_measure"]:
                self.assertEqual(set(before[window].to_dict()), MEASURE)
            self.rest.market_order_buy(new_id(), BIP, base_size="2")
            margin = lambda m: Decimal(m.events[0].fcm_balance_summary.initial_margin)
            wanted = lambda m: m.channel == "futures_balance_summary" and margin(m) > Decimal(before.initial_margin)
            self.assertEqual(feed.until(wanted).events[0].type, "update")
