"""The simulator that `run` has started, and clients of the official SDK for it. Nothing of the SDK is changed."""

import json
import os
import pathlib
import queue
import time
import unittest
import uuid

from coinbase.rest import RESTClient
from coinbase.websocket import WSClient, WSUserClient, WebsocketResponse

BASE_URL = os.environ["ARBBOT_SDK_BASE_URL"]
DATA_DIR = pathlib.Path(os.environ["ARBBOT_SDK_DATA_DIR"])
BTC, BIP = "BTC-USD", "BIP-20DEC30-CDE"
PATIENCE = 20.0


def key(name="0"):
    """A key as its file holds it: `0`, `1`, `transfer`, `view-only`."""
    file = json.loads((DATA_DIR / "keys" / f"{name}.json").read_text())
    return {"api_key": file["name"], "api_secret": file["privateKey"]}


def rest(name="0", **options):
    return RESTClient(**key(name), base_url=BASE_URL, timeout=10, **options)


def admin(method, path, body=None):
    """The simulator's administrative interface, which is no part of Coinbase."""
    import requests

    token = (DATA_DIR / "admin.token").read_text().strip()
    url = f"https://{BASE_URL}/_simulator{path}"
    reply = requests.request(method, url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    reply.raise_for_status()
    return reply.json()


def new_id():
    return str(uuid.uuid4())


class Feed:
    """A WebSocket client of the SDK whose messages are parsed by the SDK's own types, which raise on wrong shapes."""

    def __init__(self, kind=WSClient, path="/ws", credentials=None, **options):
        self.raw, self.messages, self.opened, self.closed = [], queue.Queue(), 0, 0
        self.client = kind(
            base_url=f"wss://{BASE_URL}{path}",
            on_message=self._receive,
            on_open=self._open,
            on_close=self._close,
            timeout=10,
            **(credentials or {}),
            **options,
        )

    def _receive(self, text):
        self.raw.append(json.loads(text))
        self.messages.put(text)

    def _open(self):
        self.opened += 1

    def _close(self):
        self.closed += 1

    def __enter__(self):
        self.client.open()
        return self

    def __exit__(self, *_):
        if self.client._is_websocket_open():
            self.client.close()

    def next(self, patience=PATIENCE):
        """The next message: a WebsocketResponse, or the dictionary of an error."""
        text = self.messages.get(timeout=patience)
        message = json.loads(text)
        return message if message.get("type") == "error" else WebsocketResponse(message)

    def until(self, wanted, patience=PATIENCE):
        """The first message that satisfies the condition."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                message = self.next(max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(message, dict):
                raise AssertionError(f"the exchange says {message}")
            if wanted(message):
                return message
        raise AssertionError(f"nothing fitting among the last of {len(self.raw)}: {self.raw[-3:]}")

    def channel(self, name, kind=None):
        """The first message of a channel whose first event has this type."""
        return self.until(lambda m: m.channel == name and (kind is None or m.events[0]["type"] == kind))


def market_feed(authenticated=True, **options):
    return Feed(credentials=key() if authenticated else None, **options)


def user_feed(name="0", **options):
    return Feed(kind=WSUserClient, path="/ws/user", credentials=key(name), **options)


class TestCase(unittest.TestCase):
    maxDiff = None

    def eventually(self, question, wanted, patience=PATIENCE):
        """Asks until the answer satisfies the condition, and returns it."""
        deadline = time.monotonic() + patience
        while True:
            answer = question()
            if wanted(answer):
                return answer
            if time.monotonic() > deadline:
                self.fail(f"it stayed {answer}")
            time.sleep(0.05)
