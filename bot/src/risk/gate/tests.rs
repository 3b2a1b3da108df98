//! What the gate lets through, by class, contact and clock.

use arbbot_crds::limits::LimitCeilings;

use super::*;
use crate::exchange::{OrderKind, Side};

fn gate() -> (Gate, Clock) {
    let clock = Clock::manual();
    clock.advance(Duration::from_secs(1000));
    let gate = Gate::new(clock.clone());
    for slot in [Slot::Claim, Slot::Engine] {
        gate.set(slot, Vec::new());
    }
    gate.set_control(&RiskLimits::default(), &ControlTimeouts::default(), Vec::new(), Some(1), Vec::new());
    gate.in_contact(clock.boottime());
    (gate, clock)
}

fn permit(class: Class) -> Permit {
    let order = NewOrder {
        client_order_id: "id".into(),
        product: "BTC-USD".into(),
        side: Side::Sell,
        size: rust_decimal::Decimal::ONE,
        kind: OrderKind::Market,
    };
    Permit { order, class, limits: class.raises().then(RiskLimits::default) }
}

#[test]
fn a_gate_is_closed_until_the_control_is_known_and_the_lease_held() {
    let gate = Gate::new(Clock::manual());
    for class in [Class::Enter, Class::Hedge, Class::Trim, Class::Reduce, Class::Kill] {
        assert!(gate.allows(class).is_err(), "{class}");
    }
}

/// Invariant 1. Proven by mutation: `Gate::clear` without its second look.
#[test]
fn a_gate_that_closes_after_the_admission_wins() {
    let (gate, _) = gate();
    let halt = vec![Restriction::entry("spec.mode", Entry::Halted, "test")];
    gate.set_control(&RiskLimits::default(), &ControlTimeouts::default(), halt, Some(2), Vec::new());
    assert!(matches!(gate.clear(permit(Class::Enter)), Err(Denied::Mode { .. })));
}

/// SAFETY §10: an order that a limit of then allowed is not sent under a lower one of now. Proven by mutation: `Gate::clear`
/// without its look at the limits.
#[test]
fn a_limit_that_is_lowered_after_the_admission_wins() {
    let (gate, _) = gate();
    let ceiling = |ceilings| vec![Restriction { ceilings, ..Restriction::entry("ArbPolicy/p", Entry::Active, "test") }];
    let lowered = |ceilings| {
        gate.set_control(&RiskLimits::default(), &ControlTimeouts::default(), ceiling(ceilings), Some(1), Vec::new());
        [Class::Enter, Class::Hedge].map(|class| match gate.clear(permit(class)) {
            Err(Denied::Limit { limit, .. }) => limit,
            Ok(_) => "cleared",
            Err(denied) => panic!("{denied}"),
        })
    };
    let of_order = |most: u32| LimitCeilings { max_order_notional: Some(most.into()), ..LimitCeilings::default() };
    assert_eq!(lowered(of_order(900)), ["maxOrderNotional"; 2]);
    for class in [Class::Trim, Class::Reduce] {
        assert!(gate.clear(permit(class)).is_ok(), "no limit denies {class}");
    }
    assert_eq!(lowered(LimitCeilings { max_open_orders: Some(9), ..LimitCeilings::default() }), ["maxOpenOrders"; 2]);
    assert_eq!(lowered(of_order(5_000)), ["cleared"; 2], "a ceiling that lowers nothing");
    let higher = RiskLimits { max_order_notional: 6_000.into(), ..RiskLimits::default() };
    gate.set_control(&higher, &ControlTimeouts::default(), Vec::new(), Some(2), Vec::new());
    assert!(gate.clear(permit(Class::Enter)).is_ok(), "a limit that was raised");
}

#[test]
fn lost_contact_closes_the_gate_step_by_step() {
    let (gate, clock) = gate();
    let allowed = |gate: &Gate| [Class::Enter, Class::Reduce].map(|class| gate.allows(class).is_ok());
    assert_eq!(allowed(&gate), [true, true]);
    for (seconds, expected) in [(29, [true, true]), (1, [false, true]), (30, [false, true]), (240, [false, false])] {
        clock.advance(Duration::from_secs(seconds));
        assert_eq!(allowed(&gate), expected, "after {:?}", gate.contact_age());
    }
    assert_eq!(gate.current().1, Contact::Lost);
}

/// Invariant 4: who was fenced off sends nothing. Proven by mutation: a token's end without the fence.
#[test]
fn a_token_never_outlives_the_fence() {
    let (gate, clock) = gate();
    let life = |gate: &Gate| gate.clear(permit(Class::Reduce)).map(|cleared| cleared.expires_at() - clock.boottime());
    assert_eq!(life(&gate), Ok(TOKEN_LIFE));
    clock.advance(Duration::from_secs(290));
    assert_eq!(life(&gate), Ok(Duration::from_secs(10)));
    clock.advance(Duration::from_millis(9500));
    assert!(life(&gate).is_err());
}

#[test]
fn an_order_cleared_before_a_freeze_is_dead_after_it() {
    let (gate, clock) = gate();
    let cleared = gate.clear(permit(Class::Reduce)).unwrap();
    clock.advance(Duration::from_secs(21));
    assert!(cleared.expires_at() < clock.boottime());
}
