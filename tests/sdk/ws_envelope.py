"""What every WebSocket connection has: sequence numbers, subscriptions, refusals, reconnection."""

import json
import time

from coinbase.websocket import WSUserClient
from exchange import BIP, BTC, Feed, TestCase, admin, key, market_feed

PUBLIC = ["heartbeats", "level2", "ticker", "ticker_batch", "market_trades", "candles", "status"]


class Envelope(TestCase):
    def test_heartbeats_arrive_once_a_second_and_count(self):
        with market_feed() as feed:
            feed.client.heartbeats()
            beats = [feed.channel("heartbeats") for _ in range(4)]
            counters = [int(beat.events[0].heartbeat_counter) for beat in beats]
            self.assertEqual(counters, list(range(counters[0], counters[0] + 4)))
            self.assertTrue(all(isinstance(beat.events[0].current_time, str) for beat in beats))

    def test_sequence_numbers_are_contiguous_across_all_channels_of_a_connection(self):
        with market_feed() as feed:
            feed.client.subscribe([BTC, BIP], PUBLIC + ["user", "futures_balance_summary"])
            time.sleep(6)  # the slowest channel speaks every five seconds
            frames = [frame for frame in list(feed.raw) if frame.get("type") != "error"]
            self.assertEqual([frame["sequence_num"] for frame in frames], list(range(len(frames))))
            seen = {frame["channel"] for frame in frames}
            expected = {"l2_data" if name == "level2" else name for name in PUBLIC}
            self.assertEqual(seen, expected | {"user", "futures_balance_summary", "subscriptions"})
            for frame in frames:
                self.assertEqual(set(frame), {"channel", "client_id", "timestamp", "sequence_num", "events"})
                self.assertIsInstance(frame["timestamp"], str)

    def test_a_subscription_is_acknowledged_and_taken_back(self):
        with market_feed() as feed:
            feed.client.ticker([BTC])
            feed.client.heartbeats()
            wanted = lambda m: m.channel == "subscriptions" and "heartbeats" in m.events[0].subscriptions
            self.assertEqual(feed.until(wanted).events[0].subscriptions["ticker"], [BTC])
            feed.client.ticker_unsubscribe([BTC])
            feed.until(lambda m: m.channel == "subscriptions" and "ticker" not in m.events[0].subscriptions)
            start = time.monotonic()
            while time.monotonic() < start + 2:
                self.assertNotEqual(feed.next().channel, "ticker")
            feed.client.unsubscribe_all()

    def test_a_private_channel_with_another_keys_signature_is_an_authentication_failure(self):
        forged = {"api_key": key("0")["api_key"], "api_secret": key("1")["api_secret"]}
        for channel in ["user", "futures_balance_summary", "level2"]:
            with Feed(kind=WSUserClient, path="/ws/user", credentials=forged) as feed:
                feed.client.subscribe([BTC], [channel])
                self.assertEqual(feed.next(), {"type": "error", "message": "authentication failure"})

    def test_a_private_channel_without_a_token_is_an_authentication_failure(self):
        with market_feed(authenticated=False) as feed:
            # The SDK would refuse to send this itself.
            message = json.dumps({"type": "subscribe", "channel": "user", "product_ids": [BTC]})
            feed.client._run_coroutine_threadsafe(feed.client.websocket.send(message))
            self.assertEqual(feed.next(), {"type": "error", "message": "authentication failure"})

    def test_an_unknown_channel_is_an_authentication_failure_and_an_unknown_product_is_named(self):
        with market_feed() as feed:
            feed.client.subscribe([BTC], ["level9"])
            self.assertEqual(feed.next()["message"], "authentication failure")
            feed.client.subscribe(["NO-SUCH"], ["ticker"])
            self.assertIn("NO-SUCH", feed.next()["message"])

    def test_public_channels_need_no_key(self):
        with market_feed(authenticated=False) as feed:
            feed.client.level2([BTC])
            feed.channel("l2_data", "snapshot")

    def test_a_connection_that_subscribes_to_nothing_is_closed_after_five_seconds(self):
        with market_feed(retry=False) as feed:
            start = time.monotonic()
            self.eventually(lambda: feed.client._is_websocket_open(), lambda is_open: not is_open)
            self.assertGreater(time.monotonic() - start, 4)

    def test_a_cut_connection_is_made_again_and_continues_with_a_snapshot(self):
        with market_feed() as feed:
            feed.client.subscribe([BTC], ["level2"])
            feed.channel("l2_data", "update")
            admin("POST", "/faults", {"kind": "websocket_disconnect", "count": 1})
            # The SDK subscribes again by itself; the numbers of the new connection start again.
            again = feed.until(lambda m: m.channel == "l2_data" and m.sequence_num == 0, patience=30)
            self.assertEqual(again.events[0].type, "snapshot")
            self.assertEqual(feed.opened, 2)
            feed.channel("l2_data", "update")
