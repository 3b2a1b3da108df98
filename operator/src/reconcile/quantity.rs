//! Amounts of Kubernetes: `0.5`, `500m` and `5e-1` are the same (pure).

use serde_json::Value;

/// Whether both are amounts, and the same one.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a.as_str().and_then(nano), b.as_str().and_then(nano)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// An amount in thousand-millionths. None: not an amount, or too large to compare.
fn nano(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let factor: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        "k" => 10_i128.pow(12),
        "M" => 10_i128.pow(15),
        "G" => 10_i128.pow(18),
        "T" => 10_i128.pow(21),
        "Ki" => 1_000_000_000 << 10,
        "Mi" => 1_000_000_000 << 20,
        "Gi" => 1_000_000_000 << 30,
        "Ti" => 1_000_000_000 << 40,
        _ => return None,
    };
    let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let scaled = digits.checked_mul(factor)?;
    (scaled % scale == 0).then_some(scaled / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_amount_is_recognised_however_it_is_written() {
        for (a, b) in [("0.5", "500m"), ("1Gi", "1024Mi"), ("1.5Gi", "1536Mi"), ("2", "2000m"), ("1k", "1000")] {
            assert!(same(&json!(a), &json!(b)), "{a} {b}");
        }
        for (a, b) in [("0.5", "5m"), ("1G", "1Gi"), ("", "0"), ("a", "a"), ("1", "1x")] {
            assert!(!same(&json!(a), &json!(b)), "{a} {b}");
        }
    }
}
