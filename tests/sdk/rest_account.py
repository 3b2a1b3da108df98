"""Accounts, portfolios, keys and fees."""

from exchange import BTC, new_id
from rest_support import Paced, RestCase, dec, plain
import shapes


class Account(RestCase):
    def test_accounts_come_in_pages_and_one_by_one(self):
        everything = self.shaped(self.client.get_accounts(), shapes.ACCOUNTS_REPLY)
        paged, cursor, pages = [], None, 0
        while True:
            page = self.shaped(self.client.get_accounts(limit=1, cursor=cursor), shapes.ACCOUNTS_REPLY)
            self.assertEqual((page["size"], len(page["accounts"])), (1, 1))
            paged += page["accounts"]
            pages += 1
            cursor = page["cursor"]
            if not page["has_next"]:
                break
        uuids = [account["uuid"] for account in everything["accounts"]]
        self.assertEqual([account["uuid"] for account in paged], uuids)
        self.assertGreater(pages, 1)
        one = self.shaped(self.client.get_account(uuids[0]), shapes.ACCOUNT_REPLY)["account"]
        self.assertEqual(one["uuid"], uuids[0])

    def test_a_resting_order_holds_money_until_it_is_cancelled(self):
        free, total = self.balance("USD")
        bid, _ = self.prices()
        order_id = plain(self.client.limit_order_gtc_buy(new_id(), BTC, "0.01", str(int(bid * dec("0.9")))))
        order_id = order_id["success_response"]["order_id"]
        held, after = self.balance("USD")
        self.assertEqual(after, total)
        self.assertLess(held, free - 500)
        self.assertEqual(dec(self.order(order_id)["outstanding_hold_amount"]), free - held)
        self.client.cancel_orders([order_id])
        self.becomes(order_id, "CANCELLED")
        self.assertEqual(self.balance("USD"), (free, total))

    def test_keys_say_what_they_may_do(self):
        for name, trade, transfer in (("0", True, False), ("view-only", False, False), ("transfer", True, True)):
            reply = self.shaped(Paced(name).get_api_key_permissions(), shapes.PERMISSIONS_REPLY)
            self.assertEqual((reply["can_view"], reply["can_trade"], reply["can_transfer"]), (True, trade, transfer))

    def test_an_ed25519_key_works_like_the_other(self):
        theirs = plain(Paced("ed25519").get_api_key_permissions())
        self.assertEqual(theirs, plain(self.client.get_api_key_permissions()))

    def test_fees_add_up_and_depend_on_the_product(self):
        before = self.shaped(self.client.get_transaction_summary(), shapes.SUMMARY_REPLY)
        bought = self.buy_btc("0.01")
        after = plain(self.client.get_transaction_summary(product_type="SPOT"))
        self.assertAlmostEqual(after["total_volume"] - before["total_volume"], float(bought["filled_value"]), places=1)
        self.assertAlmostEqual(after["total_fees"] - before["total_fees"], float(bought["total_fees"]), places=1)
        paid = dec(bought["total_fees"]) / dec(bought["filled_value"])
        self.assertAlmostEqual(paid, dec(after["fee_tier"]["taker_fee_rate"]), places=6)
        future = plain(self.client.get_transaction_summary(product_type="FUTURE", product_venue="FCM"))
        self.assertNotEqual(future["fee_tier"], after["fee_tier"])


class Portfolios(RestCase):
    def test_a_portfolio_is_made_named_funded_emptied_and_deleted(self):
        mover = Paced("transfer")
        own = self.shaped(self.client.get_portfolios(), shapes.PORTFOLIOS_REPLY)["portfolios"][0]["uuid"]
        made = self.shaped(self.client.create_portfolio("savings"), shapes.PORTFOLIO_REPLY)["portfolio"]["uuid"]
        named = self.shaped(self.client.edit_portfolio(made, "reserve"), shapes.PORTFOLIO_REPLY)["portfolio"]
        self.assertEqual((named["uuid"], named["name"]), (made, "reserve"))
        listed = plain(self.client.get_portfolios())["portfolios"]
        self.assertIn(named, listed)
        self.assertNotIn(made, [p["uuid"] for p in plain(self.client.get_portfolios("DEFAULT"))["portfolios"]])

        total = self.usd()
        moved = mover.move_portfolio_funds("250.5", "USD", own, made)
        self.assertEqual(self.shaped(moved, shapes.MOVE_REPLY)["target_portfolio_uuid"], made)
        self.assertEqual(self.usd(), total - dec("250.5"))
        held = self.shaped(self.client.get_portfolio_breakdown(made), shapes.BREAKDOWN_REPLY)["breakdown"]
        self.assertEqual(dec(held["portfolio_balances"]["total_balance"]["value"]), dec("250.5"))
        with self.assertRaisesRegex(Exception, "400.*not empty"):
            self.client.delete_portfolio(made)
        mover.move_portfolio_funds("250.5", "USD", made, own)
        self.assertEqual(plain(self.client.delete_portfolio(made)), {})
        self.assertEqual(self.usd(), total)
        with self.assertRaisesRegex(Exception, "404"):
            self.client.get_portfolio_breakdown(made)

    def test_only_a_key_that_may_transfer_moves_money(self):
        own = plain(self.client.get_portfolios())["portfolios"][0]["uuid"]
        with self.assertRaisesRegex(Exception, "403.*Missing Required Scopes"):
            self.client.move_portfolio_funds("1", "USD", own, own)

    def test_the_breakdown_shows_what_the_accounts_hold(self):
        own = plain(self.client.get_portfolios())["portfolios"][0]["uuid"]
        self.buy_btc("0.01")
        held = self.shaped(self.client.get_portfolio_breakdown(own), shapes.BREAKDOWN_REPLY)["breakdown"]
        btc = next(p for p in held["spot_positions"] if p["asset"] == "BTC")
        self.assertAlmostEqual(dec(str(btc["total_balance_crypto"])), self.balance("BTC")[1], places=7)
