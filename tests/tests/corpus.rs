//! What the fuzz targets check, of all inputs that are kept in `fuzz/corpus`: those to begin
//! with, and those that once failed.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, panic};

use tests::workspace;

fn replay(target: &str, check: fn(&[u8])) {
    let directory = workspace().join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{} inputs in {target}", files.len());
    let failed = files.iter().filter(|file| {
        let input = fs::read(file).unwrap();
        panic::catch_unwind(|| check(&input)).is_err()
    });
    let failed: Vec<_> = failed.map(|file| file.display().to_string()).collect();
    assert!(
        failed.is_empty(),
        "it does not hold of\n{}",
        failed.join("\n")
    );
}

#[test]
fn requests() {
    replay("requests", targets::requests::check);
}

#[test]
fn plans() {
    replay("plans", targets::plans::check);
}

#[test]
fn control() {
    replay("control", targets::control::check);
}

#[test]
fn selectors() {
    replay("selectors", targets::selectors::check);
}

#[test]
fn templates() {
    replay("templates", targets::templates::check);
}
