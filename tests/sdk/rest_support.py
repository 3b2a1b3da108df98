"""What the REST tests share: a client that keeps below the rate limit, and replies held to their shapes."""

import decimal
import logging
import time

from exchange import BIP, BTC, TestCase, new_id, rest
from shapes import faults

# The SDK logs every error that a test provokes.
logging.getLogger("coinbase.RESTClient").setLevel(logging.CRITICAL)

# Below Coinbase's 30 requests per second.
PACE = 1 / 25


class Paced:
    """A RESTClient of the SDK whose calls are spread in time, so that tests do not run into the rate limit."""

    def __init__(self, name="0", **options):
        self.sdk, self.last = rest(name, **options), 0.0

    def __getattr__(self, name):
        method = getattr(self.sdk, name)

        def call(*arguments, **options):
            time.sleep(max(0.0, self.last + PACE - time.monotonic()))
            self.last = time.monotonic()
            return method(*arguments, **options)

        return call


def dec(text):
    return decimal.Decimal(text)


class RestCase(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = Paced()

    def shaped(self, reply, shape):
        """The reply as a dictionary that has exactly the documented keys with their types."""
        value = plain(reply)
        self.assertEqual(faults(value, shape), [])
        return value

    def usd(self, client=None):
        """USD in total: free and held."""
        return self.balance("USD", client)[1]

    def balance(self, currency, client=None):
        """What is free and what is there in all."""
        accounts = plain((client or self.client).get_accounts(limit=250))["accounts"]
        account = next(a for a in accounts if a["currency"] == currency)
        free, held = dec(account["available_balance"]["value"]), dec(account["hold"]["value"])
        return free, free + held

    def prices(self, product=BTC):
        """Best bid and best offer."""
        book = plain(self.client.get_product_book(product, limit=1))["pricebook"]
        return dec(book["bids"][0]["price"]), dec(book["asks"][0]["price"])

    def order(self, order_id, client=None):
        return plain((client or self.client).get_order(order_id))["order"]

    def becomes(self, order_id, status, client=None):
        return self.eventually(lambda: self.order(order_id, client), lambda order: order["status"] == status)

    def buy_btc(self, size="0.05"):
        reply = plain(self.client.market_order_buy(new_id(), BTC, base_size=size))
        self.assertTrue(reply["success"], reply)
        return self.becomes(reply["success_response"]["order_id"], "FILLED")

    def flat(self, product=BIP, client=None):
        """Closes whatever futures position there is."""
        client = client or self.client
        positions = plain(client.list_futures_positions())["positions"]
        if any(p["product_id"] == product for p in positions):
            client.close_position(new_id(), product)
            self.eventually(lambda: plain(client.list_futures_positions())["positions"], lambda p: p == [])


def plain(reply):
    """The dictionary that the SDK made its reply of, whatever types it put inside."""
    if isinstance(reply, list):
        return [plain(each) for each in reply]
    if isinstance(reply, dict):
        return {key: plain(value) for key, value in reply.items()}
    return plain(vars(reply)) if hasattr(reply, "to_dict") else reply


def near(price, percent, tick="0.01"):
    """A price so many percent away, on the tick."""
    price = price * (1 + dec(percent) / 100)
    return str((price / dec(tick)).to_integral_value() * dec(tick))


def later(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
