"""No public method of the SDK's REST client is without a test, unless it is listed here with a reason."""

import ast
import inspect
import pathlib
import unittest

from coinbase.rest import RESTClient
import rest_futures
import rest_orders

NOT_TESTED = {
    "create_convert_quote": "the simulator has no conversion between currencies",
    "commit_convert_trade": "the simulator has no conversion between currencies",
    "get_convert_trade": "the simulator has no conversion between currencies",
    "list_payment_methods": "the simulator has no banks: a bot must not be able to move money",
    "get_payment_method": "the simulator has no banks: a bot must not be able to move money",
    "get": "what every method is made of",
    "post": "what every method is made of",
    "put": "what every method is made of",
    "delete": "what every method is made of",
    "prepare_and_send_request": "what every method is made of",
    "send_request": "what every method is made of",
    "set_headers": "what every method is made of",
}


def called():
    """Names of the methods that the tests of this directory call or name."""
    names = set(rest_orders.METHODS) | set(rest_futures.DEPRECATED)
    for path in pathlib.Path(__file__).parent.glob("rest_*.py"):
        tree = ast.parse(path.read_text())
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names


class Coverage(unittest.TestCase):
    def test_every_method_is_tested_or_listed_with_a_reason(self):
        methods = {name for name, _ in inspect.getmembers(RESTClient, inspect.isfunction) if not name.startswith("_")}
        self.assertEqual(methods - called() - set(NOT_TESTED), set())
        self.assertEqual(set(NOT_TESTED) - methods, set(), "listed, but not a method")
