"""What Coinbase documents of every reply: keys and their types. From its reference and the SDK's types/*.py.

A reply must have exactly these keys. The SDK's own types accept anything, so parsing with them shows nothing.
"""

import re
import uuid

DECIMAL = re.compile(r"-?\d+(\.\d+)?$")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def Str(value):
    return isinstance(value, str)


def Dec(value):
    """A decimal, in a string."""
    return isinstance(value, str) and DECIMAL.match(value)


def DecOrEmpty(value):
    return value == "" or Dec(value)


def Bool(value):
    return isinstance(value, bool)


def Int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def Num(value):
    """A JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def Time(value):
    return isinstance(value, str) and TIME.match(value)


def Uuid(value):
    try:
        return str(uuid.UUID(value)) == value
    except (ValueError, AttributeError, TypeError):
        return False


def Digits(value):
    return isinstance(value, str) and value.isdigit()


def Nothing(value):
    return value is None


class Or:
    def __init__(self, *shapes):
        self.shapes = shapes


class Enum:
    def __init__(self, *values):
        self.values = values


class List:
    def __init__(self, shape):
        self.shape = shape


def Maybe(shape):
    return Or(shape, Nothing)


AMOUNT = {"value": Dec, "currency": Str}

# On the wire epochSeconds and epochMillis; the SDK finds them only under these names, and gives them these.
TIME_REPLY = {"iso": Time, "epoch_seconds": Digits, "epoch_millis": Digits}

LEVEL = {"price": Dec, "size": Dec}
PRICEBOOK = {"product_id": Str, "bids": List(LEVEL), "asks": List(LEVEL), "time": Time}
BOOK_REPLY = {
    "pricebook": PRICEBOOK, "last": Dec, "mid_market": DecOrEmpty, "spread_bps": DecOrEmpty,
    "spread_absolute": DecOrEmpty,
}
BEST_REPLY = {"pricebooks": List(PRICEBOOK)}

PRODUCT_COMMON = {
    "product_id": Str, "price": Dec, "price_percentage_change_24h": Dec, "volume_24h": Dec,
    "volume_percentage_change_24h": Dec, "base_increment": Dec, "quote_increment": Dec, "quote_min_size": Dec,
    "quote_max_size": Dec, "base_min_size": Dec, "base_max_size": Dec, "base_name": Str, "quote_name": Str,
    "watched": Bool, "is_disabled": Bool, "new": Bool, "status": Enum("online", ""), "cancel_only": Bool,
    "limit_only": Bool, "post_only": Bool, "trading_disabled": Bool, "auction_mode": Bool,
    "quote_currency_id": Str, "base_currency_id": Str, "mid_market_price": DecOrEmpty, "alias": Str,
    "alias_to": List(Str), "base_display_symbol": Str, "quote_display_symbol": Str, "view_only": Bool,
    "price_increment": Dec, "display_name": Str, "approximate_quote_24h_volume": Dec,
}
SPOT_PRODUCT = PRODUCT_COMMON | {
    "product_type": Enum("SPOT"), "product_venue": Enum("CBE"), "fcm_trading_session_details": Nothing,
}
MARGIN_RATE = {"long_margin_rate": Dec, "short_margin_rate": Dec}
FUTURE_PRODUCT = PRODUCT_COMMON | {
    "product_type": Enum("FUTURE"), "product_venue": Enum("FCM"),
    "fcm_trading_session_details": {
        "is_session_open": Bool, "open_time": Time, "close_time": Time, "session_state": Str,
        "after_hours_order_entry_disabled": Bool, "closed_reason": Str,
        "maintenance": Maybe({"start_time": Time, "end_time": Time}),
    },
    "future_product_details": {
        "venue": Enum("cde"), "contract_code": Str, "contract_expiry": Time, "contract_size": Dec,
        "contract_root_unit": Str, "group_description": Str, "contract_expiry_timezone": Str,
        "group_short_description": Str, "risk_managed_by": Enum("MANAGED_BY_FCM"),
        "contract_expiry_type": Enum("EXPIRING"), "contract_display_name": Str, "time_to_expiry_ms": Str,
        "time_to_expiry": Str, "non_crypto": Bool, "open_interest": Dec, "funding_rate": Dec, "funding_time": Time,
        "funding_interval": Enum("3600s"), "index_price": Dec, "settlement_price": Dec,
        "intraday_margin_rate": MARGIN_RATE, "overnight_margin_rate": MARGIN_RATE, "twenty_four_by_seven": Bool,
        "perpetual_details": {
            # The trap of US futures: the inner rate is always empty.
            "open_interest": Dec, "funding_rate": Enum(""), "funding_time": Nothing, "max_leverage": Dec,
        },
    },
}
PRODUCTS_REPLY = {"products": List(Or(SPOT_PRODUCT, FUTURE_PRODUCT)), "num_products": Int}

CANDLES_REPLY = {
    "candles": List({"start": Digits, "low": Dec, "high": Dec, "open": Dec, "close": Dec, "volume": Dec})
}
TRADES_REPLY = {
    "trades": List({
        "trade_id": Str, "product_id": Str, "price": Dec, "size": Dec, "time": Time, "side": Enum("BUY", "SELL"),
        "bid": Str, "ask": Str, "exchange": Str,
    }),
    "best_bid": DecOrEmpty, "best_ask": DecOrEmpty,
}

ACCOUNT = {
    "uuid": Uuid, "name": Str, "currency": Str, "available_balance": AMOUNT, "default": Bool, "active": Bool,
    "created_at": Time, "updated_at": Time, "deleted_at": Maybe(Time),
    "type": Enum("ACCOUNT_TYPE_FIAT", "ACCOUNT_TYPE_CRYPTO"), "ready": Bool, "hold": AMOUNT,
    "retail_portfolio_id": Uuid, "platform": Str,
}
ACCOUNTS_REPLY = {"accounts": List(ACCOUNT), "has_next": Bool, "cursor": Str, "size": Int}
ACCOUNT_REPLY = {"account": ACCOUNT}

PORTFOLIO = {"name": Str, "uuid": Uuid, "type": Enum("DEFAULT", "CONSUMER"), "deleted": Bool}
PORTFOLIOS_REPLY = {"portfolios": List(PORTFOLIO)}
PORTFOLIO_REPLY = {"portfolio": PORTFOLIO}
MOVE_REPLY = {"source_portfolio_uuid": Uuid, "target_portfolio_uuid": Uuid}
BREAKDOWN_REPLY = {
    "breakdown": {
        "portfolio": PORTFOLIO,
        "portfolio_balances": {
            "total_balance": AMOUNT, "total_futures_balance": AMOUNT, "total_cash_equivalent_balance": AMOUNT,
            "total_crypto_balance": AMOUNT, "futures_unrealized_pnl": AMOUNT, "perp_unrealized_pnl": AMOUNT,
        },
        "spot_positions": List({
            "asset": Str, "account_uuid": Uuid, "total_balance_fiat": Num, "total_balance_crypto": Num,
            "available_to_trade_fiat": Num, "allocation": Num, "one_day_change": Num, "cost_basis": AMOUNT,
            "asset_img_url": Str, "is_cash": Bool,
        }),
        "perp_positions": List(Nothing),
        "futures_positions": List({
            "product_id": Str, "contract_size": Dec, "side": Str, "amount": Dec, "avg_entry_price": Dec,
            "current_price": Dec, "unrealized_pnl": Dec, "expiry": Time, "underlying_asset": Str,
            "asset_img_url": Str, "product_name": Str, "venue": Str, "notional_value": Dec,
        }),
    }
}

PERMISSIONS_REPLY = {
    "can_view": Bool, "can_trade": Bool, "can_transfer": Bool, "portfolio_uuid": Uuid, "portfolio_type": Str,
}
SUMMARY_REPLY = {
    "total_volume": Num, "total_fees": Num,
    "fee_tier": {
        "pricing_tier": Str, "usd_from": DecOrEmpty, "usd_to": DecOrEmpty, "taker_fee_rate": Dec,
        "maker_fee_rate": Dec, "aop_from": DecOrEmpty, "aop_to": DecOrEmpty,
    },
    "margin_rate": Maybe({"value": Dec}), "goods_and_services_tax": Maybe({"rate": Dec, "type": Str}),
    "advanced_trade_only_volumes": Num, "advanced_trade_only_fees": Num, "coinbase_pro_volume": Num,
    "coinbase_pro_fees": Num, "total_balance": Dec, "has_promo_fee": Bool,
}

MARGIN_WINDOW = {
    "margin_window_type": Enum("FCM_MARGIN_WINDOW_TYPE_INTRADAY", "FCM_MARGIN_WINDOW_TYPE_OVERNIGHT"),
    "margin_level": Str, "initial_margin": Dec, "maintenance_margin": Dec, "liquidation_buffer_percentage": Dec,
    "total_hold": Dec, "futures_buying_power": Dec,
}
BALANCE_SUMMARY_REPLY = {
    "balance_summary": {
        "futures_buying_power": AMOUNT, "total_usd_balance": AMOUNT, "cbi_usd_balance": AMOUNT,
        "cfm_usd_balance": AMOUNT, "total_open_orders_hold_amount": AMOUNT, "unrealized_pnl": AMOUNT,
        "daily_realized_pnl": AMOUNT, "initial_margin": AMOUNT, "available_margin": AMOUNT,
        "liquidation_threshold": AMOUNT, "liquidation_buffer_amount": AMOUNT, "liquidation_buffer_percentage": Dec,
        "intraday_margin_window_measure": MARGIN_WINDOW, "overnight_margin_window_measure": MARGIN_WINDOW,
    }
}
POSITION = {
    "product_id": Str, "expiration_time": Time, "side": Enum("LONG", "SHORT"), "number_of_contracts": Dec,
    "current_price": Dec, "avg_entry_price": Dec, "unrealized_pnl": Dec, "daily_realized_pnl": Dec,
    "total_fees": Dec, "contract_size": Dec,
}
POSITIONS_REPLY = {"positions": List(POSITION)}
POSITION_REPLY = {"position": POSITION}
SWEEPS_REPLY = {
    "sweeps": List({
        "id": Uuid, "requested_amount": AMOUNT, "should_sweep_all": Bool, "status": Enum("PENDING", "PROCESSING"),
        "schedule_time": Time,
    })
}
SUCCESS_REPLY = {"success": Bool}
MARGIN_SETTING_REPLY = {"setting": Enum("INTRADAY_MARGIN_SETTING_STANDARD", "INTRADAY_MARGIN_SETTING_INTRADAY")}
MARGIN_WINDOW_REPLY = {
    "margin_window": {"margin_window_type": MARGIN_WINDOW["margin_window_type"], "end_time": Time},
    "is_intraday_margin_killswitch_enabled": Bool, "is_intraday_margin_enrollment_killswitch_enabled": Bool,
}

LIMIT = {"base_size": Dec, "limit_price": Dec}
STOP = LIMIT | {"stop_price": Dec, "stop_direction": Enum("STOP_DIRECTION_STOP_UP", "STOP_DIRECTION_STOP_DOWN")}
BRACKET = LIMIT | {"stop_trigger_price": Dec}
UNTIL = {"end_time": Time}
CONFIGURATION = Or(
    {"market_market_ioc": Or({"base_size": Dec}, {"quote_size": Dec})},
    {"market_market_fok": Or({"base_size": Dec}, {"quote_size": Dec})},
    {"sor_limit_ioc": LIMIT},
    {"limit_limit_gtc": LIMIT | {"post_only": Bool}},
    {"limit_limit_gtd": LIMIT | UNTIL | {"post_only": Bool}},
    {"limit_limit_fok": LIMIT},
    {"stop_limit_stop_limit_gtc": STOP},
    {"stop_limit_stop_limit_gtd": STOP | UNTIL},
    {"trigger_bracket_gtc": BRACKET},
    {"trigger_bracket_gtd": BRACKET | UNTIL},
    {"twap_limit_gtd": LIMIT | UNTIL | {"start_time": Time, "number_buckets": Digits, "bucket_duration": Str}},
    {"scaled_limit_gtc": {"base_size": Dec, "num_orders": Int, "min_price": Dec, "max_price": Dec}},
)
STATUS = Enum(
    "PENDING", "OPEN", "FILLED", "CANCELLED", "EXPIRED", "FAILED", "UNKNOWN_ORDER_STATUS", "QUEUED", "CANCEL_QUEUED",
    "EDIT_QUEUED",
)
ORDER = {
    "order_id": Uuid, "product_id": Str, "user_id": Uuid, "order_configuration": CONFIGURATION,
    "side": Enum("BUY", "SELL"), "client_order_id": Str, "status": STATUS,
    "time_in_force": Enum("GOOD_UNTIL_CANCELLED", "GOOD_UNTIL_DATE_TIME", "IMMEDIATE_OR_CANCEL", "FILL_OR_KILL"),
    "created_time": Time, "completion_percentage": Dec, "filled_size": DecOrEmpty,
    "average_filled_price": DecOrEmpty, "fee": DecOrEmpty, "number_of_fills": Digits, "filled_value": DecOrEmpty,
    "pending_cancel": Bool, "size_in_quote": Bool, "total_fees": Dec, "size_inclusive_of_fees": Bool,
    "total_value_after_fees": Dec, "trigger_status": Enum("INVALID_ORDER_TYPE", "STOP_PENDING", "STOP_TRIGGERED"),
    "order_type": Enum("MARKET", "LIMIT", "STOP_LIMIT", "BRACKET", "TWAP", "SCALED", "LIQUIDATION"),
    "reject_reason": Str, "settled": Bool, "product_type": Enum("SPOT", "FUTURE"), "reject_message": Str,
    "cancel_message": Str, "order_placement_source": Enum("RETAIL_ADVANCED"), "outstanding_hold_amount": Dec,
    "is_liquidation": Bool, "last_fill_time": Maybe(Time),
    "edit_history": List({"price": Dec, "size": Dec, "replace_accept_timestamp": Time}), "leverage": DecOrEmpty,
    "margin_type": Str, "retail_portfolio_id": Uuid, "originating_order_id": Str, "attached_order_id": Str,
    "attached_order_configuration": Nothing, "last_update_time": Time,
}
ORDERS_REPLY = {"orders": List(ORDER), "sequence": Digits, "has_next": Bool, "cursor": Str}
ORDER_REPLY = {"order": ORDER}
FILLS_REPLY = {
    "fills": List({
        "entry_id": Str, "trade_id": Str, "order_id": Uuid, "trade_time": Time, "trade_type": Enum("FILL"),
        "price": Dec, "size": Dec, "commission": Dec, "product_id": Str, "sequence_timestamp": Time,
        "liquidity_indicator": Enum("MAKER", "TAKER", "UNKNOWN_LIQUIDITY_INDICATOR"), "size_in_quote": Bool,
        "user_id": Uuid, "side": Enum("BUY", "SELL"), "retail_portfolio_id": Uuid,
    }),
    "cursor": Str,
}
PLACED_REPLY = {
    "success": Enum(True),
    "success_response": {
        "order_id": Uuid, "product_id": Str, "side": Enum("BUY", "SELL"), "client_order_id": Str,
        "attached_order_id": Str,
    },
    "order_configuration": CONFIGURATION,
}
REFUSED_REPLY = {
    "success": Enum(False),
    "error_response": {
        "error": Str, "message": Str, "error_details": Str, "preview_failure_reason": Str,
        "new_order_failure_reason": Str,
    },
    # As it was asked for, even if it makes no sense; nothing for close_position.
    "order_configuration": Or(
        CONFIGURATION, {}, {"market_market_ioc": {}}, {"market_market_ioc": {"base_size": Dec, "reduce_only": Bool}}),
}
CANCELLED_REPLY = {"results": List({"success": Bool, "failure_reason": Str, "order_id": Str})}
AMOUNTS = {
    "order_total": Dec, "commission_total": Dec, "quote_size": Dec, "base_size": Dec, "best_bid": DecOrEmpty,
    "best_ask": DecOrEmpty, "average_filled_price": Dec, "est_average_filled_price": Dec, "slippage": Dec,
    "order_margin_total": DecOrEmpty,
}
PREVIEW_REPLY = AMOUNTS | {
    "errs": List(Str), "warning": List(Str), "is_max": Bool, "leverage": DecOrEmpty, "long_leverage": DecOrEmpty,
    "short_leverage": DecOrEmpty, "preview_id": Uuid, "current_liquidation_buffer": DecOrEmpty,
    "projected_liquidation_buffer": DecOrEmpty, "max_leverage": DecOrEmpty, "pnl_configuration": Nothing,
}
EDIT_ERRORS = List({"edit_failure_reason": Str, "preview_failure_reason": Str})
EDIT_PREVIEW_REPLY = AMOUNTS | {"errors": EDIT_ERRORS}
EDITED_REPLY = {"success": Enum(True), "success_response": {"order_id": Uuid}, "errors": EDIT_ERRORS}
EDIT_REFUSED_REPLY = {
    "success": Enum(False), "error_response": {"error_details": Str, "edit_order_failure_reason": Str},
    "errors": EDIT_ERRORS,
}


def faults(value, shape, path="reply"):
    """What is wrong with a value, as sentences; none when it has the shape."""
    if isinstance(shape, Or):
        found = [faults(value, each, path) for each in shape.shapes]
        # The alternative that fits best says what is wrong.
        return min(found, key=len)
    if isinstance(shape, Enum):
        return [] if value in shape.values else [f"{path} is {value!r}, not one of {shape.values}"]
    if isinstance(shape, List):
        if not isinstance(value, list):
            return [f"{path} is {value!r}, not a list"]
        return [fault for i, each in enumerate(value) for fault in faults(each, shape.shape, f"{path}[{i}]")]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{path} is {value!r}, not an object"]
        missing = [f"{path}.{key} is missing" for key in shape if key not in value]
        unknown = [f"{path}.{key} is not documented" for key in value if key not in shape]
        inner = [f for key in shape if key in value for f in faults(value[key], shape[key], f"{path}.{key}")]
        return missing + unknown + inner
    return [] if shape(value) else [f"{path} is {value!r}, not {shape.__name__}"]
