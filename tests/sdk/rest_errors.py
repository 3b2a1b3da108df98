"""What the exchange refuses, and how: HTTP errors with their bodies, and business reasons in a reply of 200."""

import concurrent.futures
import json

from coinbase.rest import RESTClient
from exchange import BASE_URL, BIP, BTC, key, new_id, rest
from requests.exceptions import HTTPError
from rest_support import Paced, RestCase, near, plain
import shapes

GTC = "limit_limit_gtc"


class HttpErrors(RestCase):
    def error(self, status, call, *arguments, **options):
        """The body of the error that a call ends with."""
        with self.assertRaises(HTTPError) as raised:
            call(*arguments, **options)
        response = raised.exception.response
        self.assertEqual(response.status_code, status, response.text)
        return json.loads(response.text)

    def test_an_unknown_field_is_named_in_the_words_of_protobuf(self):
        configuration = {"market_market_ioc": {"base_size": "0.001"}}
        body = self.error(400, self.client.create_order, new_id(), BTC, "BUY", configuration, reduceOnly=True)
        self.assertEqual(set(body), {"error", "error_details", "message"})
        self.assertEqual(body["error"], "unknown")
        self.assertRegex(body["error_details"], r'^proto: \(line 1:\d+\): unknown field "reduceOnly"$')
        inner = {"market_market_ioc": {"base_size": "0.001", "colour": "red"}}
        body = self.error(400, self.client.create_order, new_id(), BTC, "BUY", inner)
        self.assertRegex(body["error_details"], 'unknown field "colour"')
        body = self.error(400, self.client.create_order, new_id(), BTC, "BUY", {"iceberg": {}})
        self.assertRegex(body["error_details"], 'unknown field "iceberg"')
        body = self.error(400, self.client.create_order, new_id(), BTC, "HOLD", configuration)
        self.assertRegex(body["error_details"], 'invalid value for enum field: "HOLD"')

    def test_a_wrong_key_is_unauthorized(self):
        wrong = RESTClient(**(key("0") | {"api_secret": key("1")["api_secret"]}), base_url=BASE_URL, timeout=10)
        body = self.error(401, wrong.get_accounts)
        self.assertEqual((body["error"], body["message"]), ("unauthenticated", "Unauthorized"))
        unknown = RESTClient(**(key("0") | {"api_key": new_id()}), base_url=BASE_URL, timeout=10)
        self.error(401, unknown.get_accounts)

    def test_a_key_without_the_permission_is_forbidden(self):
        viewer = Paced("view-only")
        viewer.get_accounts()
        with self.assertRaisesRegex(HTTPError, "Missing Required Scopes"):
            viewer.market_order_buy(new_id(), BTC, base_size="0.001")
        body = self.error(403, viewer.cancel_orders, [new_id()])
        self.assertEqual((body["error"], body["error_details"]), ("PERMISSION_DENIED", "Missing required scopes"))

    def test_what_is_not_there_is_not_found(self):
        for call, argument in (
            (self.client.get_product, "XXX-USD"), (self.client.get_order, new_id()), (self.client.get_account, new_id()),
            (self.client.get_futures_position, "ETP-20DEC30-CDE"),
        ):
            self.assertEqual(self.error(404, call, argument)["error"], "NOT_FOUND")

    def test_another_portfolios_order_is_not_found(self):
        reply = plain(Paced("1").market_order_buy(new_id(), BTC, base_size="0.001"))
        self.error(404, self.client.get_order, reply["success_response"]["order_id"])

    def test_too_many_requests_are_limited_and_the_headers_say_so(self):
        client = rest("1", rate_limit_headers=True)
        reply = client.get_api_key_permissions()
        self.assertEqual(reply.rate_limit_limit, "30")
        self.assertTrue(0 <= int(reply.rate_limit_remaining) < 30 and int(reply.rate_limit_reset) >= 0)
        # More at a time than one connection could send.
        clients = [rest("1") for _ in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            def hammer(client):
                found = []
                for _ in range(40):
                    try:
                        client.get_api_key_permissions()
                    except HTTPError as error:
                        found.append(error.response)
                return found

            refusals = [response for found in pool.map(hammer, clients) for response in found]
        self.assertTrue(refusals)
        self.assertEqual({response.status_code for response in refusals}, {429})
        body = json.loads(refusals[0].text)
        self.assertEqual(body, {"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]})
        self.assertEqual(refusals[0].headers["x-ratelimit-limit"], "30")
        self.eventually(lambda: allowed(clients[0]), bool)


def allowed(client):
    try:
        return bool(plain(client.get_api_key_permissions()))
    except HTTPError:
        return False


class BusinessReasons(RestCase):
    def refused(self, configuration, product=BTC, side="BUY", **options):
        reply = self.client.create_order(new_id(), product, side, configuration, **options)
        return self.shaped(reply, shapes.REFUSED_REPLY)["error_response"]

    def test_orders_that_break_a_rule_are_refused_with_its_name(self):
        bid, ask = self.prices()
        limit = lambda size, price, post_only=False: {
            GTC: {"base_size": size, "limit_price": str(price), "post_only": post_only}}
        market = lambda **size: {"market_market_ioc": size}
        stop = lambda stop, price: {"stop_limit_stop_limit_gtc": {
            "base_size": "0.001", "limit_price": price, "stop_price": stop, "stop_direction": "STOP_DIRECTION_STOP_UP"}}
        cases = [
            ("INVALID_PRICE_PRECISION", limit("0.001", "60000.001")),
            ("INVALID_SIZE_PRECISION", limit("0.0010000001", near(bid, -1))),
            ("PREVIEW_INVALID_BASE_SIZE_TOO_SMALL", limit("0.0000001", near(bid, -1))),
            ("PREVIEW_INVALID_BASE_SIZE_TOO_LARGE", limit("100000", near(bid, -1))),
            ("PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL", market(quote_size="0.10")),
            ("INVALID_LIMIT_PRICE_POST_ONLY", limit("0.001", near(ask, 1), True)),
            ("INSUFFICIENT_FUND", limit("1000", near(bid, -1))),
            ("LIMIT_PRICE_TOO_FAR_FROM_MARKET", limit("0.001", near(ask, 50))),
            ("INVALID_REQUEST", market()),
            ("STOP_PRICE_BELOW_LAST_TRADE_PRICE", stop(near(bid, -3), near(bid, -2))),
            ("STOP_PRICE_ABOVE_LIMIT_PRICE", stop(near(ask, 3), near(ask, 2))),
        ]
        for reason, configuration in cases:
            with self.subTest(reason):
                refused = self.refused(configuration)
                self.assertEqual(refused["error"], reason, refused)
                named = refused["new_order_failure_reason"], refused["preview_failure_reason"]
                self.assertIn(reason, named)
        with self.subTest("product"):
            self.assertEqual(self.refused(market(base_size="1"), "XXX-USD")["error"], "INVALID_PRODUCT_ID")
        with self.subTest("leverage"):
            self.assertEqual(self.refused(market(base_size="1"), leverage="5")["error"], "INVALID_LEVERAGE")
            refused = self.refused(market(base_size="1"), margin_type="ISOLATED")
            self.assertEqual(refused["error"], "INVALID_MARGIN_TYPE")

    def test_futures_have_their_own_reasons(self):
        bid, ask = self.prices(BIP)
        limit = lambda price: {GTC: {"base_size": "1", "limit_price": price, "post_only": False}}
        market = lambda size, **more: {"market_market_ioc": {"base_size": size} | more}
        cases = [
            ("PREVIEW_INSUFFICIENT_FUNDS_FOR_FUTURES", market("10000")),
            ("INVALID_SIZE_PRECISION", market("1.5")),
            ("INVALID_PRICE_PRECISION", limit(near(bid, -1, "5")[:-1] + "3")),
            ("REDUCE_ONLY_NOT_ALLOWED_ON_VENUE", market("1", reduce_only=True)),
            ("LIMIT_ORDER_PRICE_EXCEEDS_PRICE_BAND_ON_BUY", limit(near(ask, 20, "5"))),
        ]
        for reason, configuration in cases:
            with self.subTest(reason):
                self.assertEqual(self.refused(configuration, BIP)["error"], reason)

    def test_a_closed_session_takes_no_orders(self):
        from exchange import admin

        admin("POST", "/faults", {"kind": "session_closed", "product_id": BIP, "for": "1m"})
        try:
            refused = self.refused({"market_market_ioc": {"base_size": "1"}}, BIP)
            self.assertEqual(refused["error"], "INVALID_FCM_TRADING_SESSION")
            details = self.shaped(self.client.get_product(BIP), shapes.FUTURE_PRODUCT)["fcm_trading_session_details"]
            self.assertFalse(details["is_session_open"])
        finally:
            admin("POST", "/faults", {"clear": True})

    def test_nobody_trades_with_himself(self):
        _, ask = self.prices()
        self.buy_btc("0.01")
        bid, ask = self.prices()
        # An offer of our own that is the best one, and then a buy that reaches it.
        sell = plain(self.client.limit_order_gtc_sell(new_id(), BTC, "0.001", near(ask, 0), post_only=True))
        self.assertTrue(sell["success"], sell)
        buy = plain(self.client.limit_order_ioc_buy(new_id(), BTC, "2", near(ask, 1)))
        order = self.order(buy["success_response"]["order_id"])
        fills = plain(self.client.get_fills(order_ids=[sell["success_response"]["order_id"]]))["fills"]
        both = [f for f in fills if f["order_id"] == order["order_id"]]
        self.assertEqual(both, [])
        self.client.cancel_orders([sell["success_response"]["order_id"]])
