//! The architecture's invariants, read from the source.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use tests::workspace;

/// Where unsafe code may be. A new file in this list is a decision to be made with care.
const UNSAFE: [&str; 5] = [
    "spotsim-ebpf/src/main.rs",
    "spotsim/src/cli/run/launch.rs",
    "spotsim/src/intercept/link.rs",
    "spotsim/src/netns.rs",
    "spotsim/src/readiness.rs",
];

/// The Rust sources below a directory of the workspace, by their paths in it.
fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![workspace().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(workspace()).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {directory}");
    found
}

/// The code of a file: without its comments and what stands in strings.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(workspace().join(path)).unwrap();
    let noise = Regex::new(r#"(?m)//.*$|b?"(?:[^"\\\n]|\\.)*""#).unwrap();
    noise.replace_all(&text, "").into_owned()
}

/// The files below some directories whose code matches.
fn naming(directories: &[&str], pattern: &str) -> BTreeSet<PathBuf> {
    let pattern = Regex::new(pattern).unwrap();
    let sources = directories.iter().flat_map(|directory| sources(directory));
    sources
        .filter(|path| pattern.is_match(&code(path)))
        .collect()
}

/// Checks that code which matches is there, and only below one path.
fn only_in(place: &str, pattern: &str) {
    let found = naming(&["spotsim/src"], pattern);
    assert!(
        !found.is_empty(),
        "nothing matches {pattern:?}: is this test still true?"
    );
    for path in found {
        assert!(
            path.starts_with(place),
            "{pattern:?} in {}, not in {place}",
            path.display()
        );
    }
}

#[test]
fn only_intercept_names_aya() {
    only_in("spotsim/src/intercept", r"\baya(_log)?\b");
}

#[test]
fn only_the_responder_names_hypers_server() {
    only_in(
        "spotsim/src/responder",
        r"\bhyper(_util)?::(\{[^;]*\b)?server\b",
    );
    only_in("spotsim/src/responder", r"\bserve_connection\b");
}

#[test]
fn only_netns_calls_setns() {
    only_in("spotsim/src/netns.rs", r"\bsetns\b");
}

#[test]
fn the_timeline_does_no_io_and_reads_no_clock() {
    let timeline = code(Path::new("spotsim/src/timeline.rs"));
    assert!(timeline.contains("fn visible"), "is this test still true?");
    let impure = concat!(
        r"\b(now\(\)|SystemTime|Instant|Zoned|tokio|nix|libc|e?print(ln)?!)",
        r"|\bstd::(\{[^;]*)?\b(env|fs|io|net|os|process|thread|time)\b",
    );
    let found = Regex::new(impure).unwrap().find(&timeline);
    assert_eq!(found.map(|found| found.as_str()), None);
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    let found = naming(
        &[
            "spotsim",
            "spotsim-common",
            "spotsim-ebpf",
            "tests",
            "xtask",
        ],
        r"\bunsafe\b",
    );
    let may: BTreeSet<PathBuf> = UNSAFE.iter().map(PathBuf::from).collect();
    assert_eq!(found, may);
}
