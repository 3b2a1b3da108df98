//! docs/invariants.md names tests that exist, for every invariant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::path::Path;

/// Name and file of every test that a row of the table links.
fn tests(row: &str) -> Vec<(&str, &str)> {
    let links = row.split("[`").skip(1).filter_map(|rest| rest.split_once("`](../"));
    links.filter_map(|(name, rest)| Some((name, rest.split_once(')')?.0))).collect()
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/invariants.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    let numbers: Vec<String> = rows.iter().map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect();
    assert_eq!(numbers, (1..=18).map(|number| number.to_string()).collect::<Vec<_>>());
    for row in rows {
        let tests = tests(row);
        assert!(!tests.is_empty(), "{row}");
        for (name, path) in tests {
            let file = std::fs::read_to_string(root.join(path)).unwrap_or_else(|_| panic!("there is no {path}"));
            assert!(file.contains(&format!("fn {name}(")), "there is no {name} in {path}");
        }
    }
}
