"""Balances, sweeps and margin of the futures account; and what is left of INTX."""

from rest_support import RestCase, dec, plain
import shapes

# Every INTX method of the SDK.
DEPRECATED = [
    "allocate_portfolio", "get_perps_portfolio_summary", "list_perps_positions", "get_perps_position",
    "get_perps_portfolio_balances", "opt_in_or_out_multi_asset_collateral",
]


class Futures(RestCase):
    def test_the_summary_adds_up(self):
        summary = self.shaped(self.client.get_futures_balance_summary(), shapes.BALANCE_SUMMARY_REPLY)["balance_summary"]
        amount = lambda key: dec(summary[key]["value"])
        self.assertEqual(amount("total_usd_balance"), amount("cbi_usd_balance") + amount("cfm_usd_balance"))
        self.assertTrue(0 <= dec(summary["liquidation_buffer_percentage"]) <= 100)

    def test_a_sweep_is_scheduled_listed_once_and_cancelled(self):
        self.client.cancel_pending_futures_sweep()
        self.assertTrue(self.shaped(self.client.schedule_futures_sweep("12.5"), shapes.SUCCESS_REPLY)["success"])
        sweeps = self.shaped(self.client.list_futures_sweeps(), shapes.SWEEPS_REPLY)["sweeps"]
        self.assertEqual([dec(s["requested_amount"]["value"]) for s in sweeps], [dec("12.5")])
        with self.assertRaisesRegex(Exception, "400.*pending"):
            self.client.schedule_futures_sweep("1")
        self.assertTrue(self.shaped(self.client.cancel_pending_futures_sweep(), shapes.SUCCESS_REPLY)["success"])
        self.assertEqual(self.shaped(self.client.list_futures_sweeps(), shapes.SWEEPS_REPLY)["sweeps"], [])

    def test_the_margin_setting_is_kept(self):
        before = self.shaped(self.client.get_intraday_margin_setting(), shapes.MARGIN_SETTING_REPLY)["setting"]
        for setting in ("INTRADAY_MARGIN_SETTING_STANDARD", "INTRADAY_MARGIN_SETTING_INTRADAY", before):
            self.assertEqual(plain(self.client.set_intraday_margin_setting(setting)), {})
            self.assertEqual(plain(self.client.get_intraday_margin_setting())["setting"], setting)
        with self.assertRaisesRegex(Exception, "400"):
            self.client.set_intraday_margin_setting("LOW")

    def test_the_margin_window_ends_in_the_future(self):
        from rest_support import later

        window = self.client.get_current_margin_window("MARGIN_PROFILE_TYPE_RETAIL_REGULAR")
        window = self.shaped(window, shapes.MARGIN_WINDOW_REPLY)["margin_window"]
        self.assertGreater(window["end_time"], later(0))


class Intx(RestCase):
    def test_every_method_says_that_it_is_over(self):
        arguments = {
            "allocate_portfolio": ("p", "BTC-PERP-INTX", "1", "USD"), "get_perps_position": ("p", "BTC-PERP-INTX"),
            "opt_in_or_out_multi_asset_collateral": ("p", True),
        }
        for method in DEPRECATED:
            with self.subTest(method), self.assertRaisesRegex(Exception, "410 .*DEPRECATED.*1 October 2026"):
                getattr(self.client, method)(*arguments.get(method, ("p",)))
