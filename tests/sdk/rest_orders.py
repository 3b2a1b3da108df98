"""Every way of the SDK to place and to preview an order, and what becomes of each."""

from exchange import BTC, new_id
from rest_support import RestCase, dec, later, near, plain
import shapes

# Helper of the SDK, configuration it sends, and how an order placed with it starts.
KINDS = {
    "market_order": ("market_market_ioc", "FILLED"),
    "limit_order_ioc": ("sor_limit_ioc", "FILLED"),
    "limit_order_fok": ("limit_limit_fok", "FILLED"),
    "limit_order_gtc": ("limit_limit_gtc", "OPEN"),
    "limit_order_gtd": ("limit_limit_gtd", "OPEN"),
    "stop_limit_order_gtc": ("stop_limit_stop_limit_gtc", "OPEN"),
    "stop_limit_order_gtd": ("stop_limit_stop_limit_gtd", "OPEN"),
    "trigger_bracket_order_gtc": ("trigger_bracket_gtc", "OPEN"),
    "trigger_bracket_order_gtd": ("trigger_bracket_gtd", "OPEN"),
}
# What the coverage test takes as called here.
METHODS = [f"{preview}{kind}{side}" for kind in KINDS for preview in ("", "preview_") for side in ("", "_buy", "_sell")]


class Orders(RestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls().buy_btc("0.2")

    def runTest(self):
        """Lets setUpClass use the helpers of an instance."""

    def terms(self, kind, side):
        """The arguments of a helper for an order that starts as KINDS says."""
        bid, ask = self.prices()
        up = lambda percent: near(ask, percent)
        down = lambda percent: near(bid, -percent)
        losing, winning = (up, down) if side == "BUY" else (down, up)
        terms = {"base_size": "0.001"}
        if kind in ("limit_order_ioc", "limit_order_fok"):
            terms["limit_price"] = losing(1)
        elif kind.startswith("limit_order"):
            terms["limit_price"] = winning(3)
        elif kind.startswith("stop_limit"):
            direction = "STOP_DIRECTION_STOP_UP" if side == "BUY" else "STOP_DIRECTION_STOP_DOWN"
            terms |= {"stop_price": losing(3), "limit_price": losing(4), "stop_direction": direction}
        elif kind.startswith("trigger_bracket"):
            terms |= {"limit_price": winning(3), "stop_trigger_price": losing(3)}
        if kind.endswith("gtd"):
            terms["end_time"] = later(3600)
        return terms

    def test_every_helper_places_what_it_says(self):
        for kind, (configuration, start) in KINDS.items():
            for side in ("BUY", "SELL"):
                for named in (False, True):
                    with self.subTest(kind=kind, side=side, named=named):
                        self.place_and_end(kind, configuration, start, side, named)

    def place_and_end(self, kind, configuration, start, side, named):
        terms, client_order_id = self.terms(kind, side), new_id()
        if named:
            reply = getattr(self.client, f"{kind}_{side.lower()}")(client_order_id, BTC, **terms)
        else:
            reply = getattr(self.client, kind)(client_order_id, BTC, side, **terms)
        placed = self.shaped(reply, shapes.PLACED_REPLY)
        order_id = placed["success_response"]["order_id"]
        self.assertEqual(placed["success_response"]["client_order_id"], client_order_id)
        self.assertLessEqual(terms.items(), placed["order_configuration"][configuration].items())

        order = self.shaped(self.client.get_order(order_id), shapes.ORDER_REPLY)["order"]
        self.assertEqual((order["status"], order["side"], order["product_id"]), (start, side, BTC))
        self.assertEqual(order["order_configuration"], placed["order_configuration"])
        listed = plain(self.client.list_orders(order_ids=[order_id], order_side=side))["orders"]
        self.assertEqual(listed, [order])
        if start == "FILLED":
            self.assertEqual(dec(order["filled_size"]), dec("0.001"))
            return
        self.assertGreater(dec(order["outstanding_hold_amount"]), 0)
        cancelled = self.shaped(self.client.cancel_orders([order_id]), shapes.CANCELLED_REPLY)["results"]
        self.assertEqual([(c["success"], c["order_id"]) for c in cancelled], [(True, order_id)])
        ended = self.becomes(order_id, "CANCELLED")
        self.assertEqual(dec(ended["outstanding_hold_amount"]), 0)

    def test_every_preview_says_what_the_order_would_cost(self):
        for kind in KINDS:
            for side in ("BUY", "SELL"):
                for named in (False, True):
                    with self.subTest(kind=kind, side=side, named=named):
                        terms = self.terms(kind, side)
                        if named:
                            reply = getattr(self.client, f"preview_{kind}_{side.lower()}")(BTC, **terms)
                        else:
                            reply = getattr(self.client, f"preview_{kind}")(BTC, side, **terms)
                        preview = self.shaped(reply, shapes.PREVIEW_REPLY)
                        self.assertEqual((preview["errs"], dec(preview["base_size"])), ([], dec("0.001")))
                        value, fee = dec(preview["quote_size"]), dec(preview["commission_total"])
                        total = value + fee if side == "BUY" else value - fee
                        self.assertAlmostEqual(dec(preview["order_total"]), total, places=6)

    def test_a_preview_places_nothing_and_names_what_is_wrong(self):
        before = plain(self.client.list_orders(limit=1))["orders"][0]["order_id"]
        limit = {"limit_limit_gtc": {"base_size": "1000", "limit_price": near(self.prices()[0], -1), "post_only": True}}
        preview = self.shaped(self.client.preview_order(BTC, "BUY", limit), shapes.PREVIEW_REPLY)
        self.assertEqual(preview["errs"], ["PREVIEW_INSUFFICIENT_FUND"])
        self.assertEqual(plain(self.client.list_orders(limit=1))["orders"][0]["order_id"], before)

    def place(self, configuration, side="BUY", product=BTC, client=None):
        reply = (client or self.client).create_order(new_id(), product, side, configuration)
        return self.shaped(reply, shapes.PLACED_REPLY)["success_response"]["order_id"]

    def test_configurations_that_have_no_helper(self):
        bid, ask = self.prices()
        twap = {
            "base_size": "0.003", "limit_price": near(ask, 1), "start_time": later(-1), "end_time": later(3),
            "number_buckets": "3", "bucket_duration": "1s",
        }
        order_id = self.place({"twap_limit_gtd": twap})
        order = self.becomes(order_id, "FILLED")
        self.shaped(self.client.get_order(order_id), shapes.ORDER_REPLY)
        self.assertEqual(order["order_type"], "TWAP")
        self.assertGreaterEqual(int(order["number_of_fills"]), 3)

        scaled = {"base_size": "0.003", "num_orders": 3, "min_price": near(bid, -5), "max_price": near(bid, -4)}
        order_id = self.place({"scaled_limit_gtc": scaled})
        order = self.shaped(self.client.get_order(order_id), shapes.ORDER_REPLY)["order"]
        self.assertEqual((order["status"], order["order_type"]), ("OPEN", "SCALED"))
        self.client.cancel_orders([order_id])
        self.becomes(order_id, "CANCELLED")

        refused = self.client.create_order(new_id(), BTC, "BUY", {"market_market_fok": {"base_size": "0.001"}})
        refused = self.shaped(refused, shapes.REFUSED_REPLY)["error_response"]
        self.assertEqual(refused["error"], "UNSUPPORTED_ORDER_CONFIGURATION")

    def test_a_buy_by_amount_spends_it_fee_included(self):
        before = self.usd()
        reply = plain(self.client.market_order_buy(new_id(), BTC, quote_size="500"))
        order = self.becomes(reply["success_response"]["order_id"], "FILLED")
        spent = before - self.usd()
        # Both balances and the total are rounded to eight decimals.
        self.assertLessEqual(abs(spent - dec(order["total_value_after_fees"])), dec("0.00000001"))
        self.assertTrue(dec("499") < spent <= 500, spent)
        self.assertTrue(order["size_in_quote"])

    def test_an_edit_changes_price_and_size_and_is_remembered(self):
        bid, _ = self.prices()
        price, better = near(bid, -5), near(bid, -4)
        order_id = plain(self.client.limit_order_gtc_buy(new_id(), BTC, "0.002", price))["success_response"]["order_id"]
        preview = self.client.preview_edit_order(order_id, size="0.003", price=better)
        preview = self.shaped(preview, shapes.EDIT_PREVIEW_REPLY)
        self.assertEqual((preview["errors"], dec(preview["base_size"])), ([], dec("0.003")))
        edited = self.shaped(self.client.edit_order(order_id, size="0.003", price=better), shapes.EDITED_REPLY)
        self.assertEqual(edited["success_response"]["order_id"], order_id)
        # Accepted is not yet changed.
        self.eventually(lambda: self.order(order_id), lambda order: order["status"] == "OPEN")
        order = self.shaped(self.client.get_order(order_id), shapes.ORDER_REPLY)["order"]
        limit = order["order_configuration"]["limit_limit_gtc"]
        self.assertEqual((dec(limit["base_size"]), dec(limit["limit_price"])), (dec("0.003"), dec(better)))
        self.assertEqual([(dec(e["size"]), dec(e["price"])) for e in order["edit_history"]], [(dec("0.002"), dec(price))])
        for change, reason in (
            ({"price": better}, "INVALID_EDITED_SIZE"),
            ({"size": "0.003", "price": better}, "EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST"),
        ):
            refused = self.shaped(self.client.edit_order(order_id, **change), shapes.EDIT_REFUSED_REPLY)
            self.assertEqual(refused["errors"][0]["edit_failure_reason"], reason)
        refused = self.client.preview_edit_order(new_id(), size="1", price="1")
        refused = self.shaped(refused, shapes.EDIT_PREVIEW_REPLY)["errors"]
        self.assertEqual(refused[0]["edit_failure_reason"], "ORDER_NOT_FOUND")
        self.client.cancel_orders([order_id])
        self.becomes(order_id, "CANCELLED")

    def test_a_repeated_client_order_id_gives_the_first_order(self):
        client_order_id, price = new_id(), near(self.prices()[0], -5)
        ids = [plain(self.client.limit_order_gtc_buy(client_order_id, BTC, "0.001", price)) for _ in range(2)]
        first, second = (reply["success_response"]["order_id"] for reply in ids)
        self.assertEqual(first, second)
        self.client.cancel_orders([first])
        self.becomes(first, "CANCELLED")


class Cancelling(RestCase):
    def test_accepted_is_not_cancelled(self):
        price = near(self.prices()[0], -5)
        order_id = plain(self.client.limit_order_gtc_buy(new_id(), BTC, "0.001", price))["success_response"]["order_id"]
        unknown = new_id()
        results = self.shaped(self.client.cancel_orders([order_id, unknown]), shapes.CANCELLED_REPLY)["results"]
        self.assertEqual([r["success"] for r in results], [True, False])
        self.assertEqual(results[1]["failure_reason"], "UNKNOWN_CANCEL_ORDER")
        self.becomes(order_id, "CANCELLED")
        again = plain(self.client.cancel_orders([order_id]))["results"][0]
        self.assertEqual((again["success"], again["failure_reason"]), (False, "COMMANDER_REJECTED_CANCEL_ORDER"))

    def test_a_slow_cancel_shows_as_queued(self):
        from exchange import admin

        price = near(self.prices()[0], -5)
        order_id = plain(self.client.limit_order_gtc_buy(new_id(), BTC, "0.001", price))["success_response"]["order_id"]
        admin("POST", "/faults", {"kind": "slow_cancels", "milliseconds": 1500})
        try:
            self.client.cancel_orders([order_id])
            order = self.order(order_id)
            self.assertEqual((order["status"], order["pending_cancel"]), ("CANCEL_QUEUED", True))
        finally:
            admin("POST", "/faults", {"clear": True})
        self.becomes(order_id, "CANCELLED")
