"""What every WebSocket message has in common."""

from exchange import BTC, TestCase, market_feed


class Envelope(TestCase):
    def test_heartbeats_arrive_once_a_second_and_count(self):
        with market_feed() as feed:
            feed.client.heartbeats()
            beats = [feed.channel("heartbeats") for _ in range(3)]
            counters = [int(beat.events[0].heartbeat_counter) for beat in beats]
            self.assertEqual(counters, list(range(counters[0], counters[0] + 3)))
            self.assertTrue(all(beat.events[0].current_time for beat in beats))


if __name__ == "__main__":
    import unittest

    unittest.main()
