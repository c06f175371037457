//! The architecture's invariants, read from the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use tests::workspace;

/// Where unsafe code may be. A new file in this list is a decision to be made with care.
const UNSAFE: [&str; 7] = [
    "spotsim-ebpf/src/cut.rs",
    "spotsim-ebpf/src/empty.rs",
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

/// Checks that code which matches is below each of some paths, and nowhere else.
fn only_in(places: &[&str], pattern: &str) {
    let found = naming(&["spotsim/src"], pattern);
    for place in places {
        assert!(
            found.iter().any(|path| path.starts_with(place)),
            "nothing in {place} matches {pattern:?}: is this test still true?"
        );
    }
    for path in found {
        assert!(
            places.iter().any(|place| path.starts_with(place)),
            "{pattern:?} in {}, not in {places:?}",
            path.display()
        );
    }
}

#[test]
fn only_intercept_names_aya() {
    only_in(&["spotsim/src/intercept"], r"\baya(_log)?\b");
}

#[test]
fn only_the_responder_and_the_control_socket_name_hypers_server() {
    let places = [
        "spotsim/src/responder",
        "spotsim/src/control/server.rs",
        // A container runtime for its tests alone.
        "spotsim/src/target/cri/fake.rs",
    ];
    only_in(&places, r"\bhyper(_util)?::(\{[^;]*\b)?server\b");
    only_in(&places, r"\bserve_connection\b");
}

#[test]
fn only_cri_names_tonic_and_prost() {
    only_in(&["spotsim/src/target/cri"], r"\b(tonic(_prost)?|prost)\b");
}

#[test]
fn only_emit_names_the_aws_sdk_and_tls() {
    let places = ["spotsim/src/emit/aws.rs", "spotsim/src/emit/aws"];
    only_in(
        &places,
        r"\baws_(config|credential_types|sdk_\w+|smithy_\w+|types)\b",
    );
    only_in(&["spotsim/src/emit/http.rs"], r"\b(hyper_|tokio_)?rustls\b");
}

#[test]
fn only_netns_calls_setns() {
    only_in(&["spotsim/src/netns.rs"], r"\bsetns\b");
}

/// Checks that some files do no I/O and read no clock.
fn pure(files: &[PathBuf], has: &str) {
    let text: String = files.iter().map(|path| code(path)).collect();
    assert!(text.contains(has), "{has}: is this test still true?");
    let impure = concat!(
        r"\b(now\(\)|SystemTime|Instant|Zoned|tokio|nix|libc|e?print(ln)?!)",
        r"|\bstd::(\{[^;]*)?\b(env|fs|io|net|os|process|thread|time)\b",
    );
    let found = Regex::new(impure).unwrap().find(&text);
    assert_eq!(found.map(|found| found.as_str()), None, "beside {has}");
}

#[test]
fn timeline_and_events_do_no_io_and_read_no_clock() {
    pure(&sources("spotsim/src/timeline"), "fn visible");
    pure(&sources("spotsim/src/event"), "fn of");
}

#[test]
fn what_becomes_of_an_experiment_is_pure() {
    let mut files = sources("spotsim/src/experiment");
    // Those have it happen, and its tests look for a directory.
    let others = ["conduct.rs", "condition.rs", "record.rs", "resolve.rs"];
    files.retain(|path| !others.iter().any(|other| path.ends_with(other)));
    pure(&files, "fn advance");
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

/// The modules of `spotsim` in the order of ARCHITECTURE.md, each with the number of its line.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = text
        .split_once("Each line may use the lines below it")
        .expect("ARCHITECTURE.md has the list");
    let list = list.split("```").nth(1).expect("the list is a block");
    let mut layers = BTreeMap::new();
    // What is indented is a part of the line above.
    let lines = list.trim().lines().filter(|line| !line.starts_with(' '));
    for (number, line) in lines.enumerate() {
        let (names, _) = line.split_once("  ").expect("names, then what they are");
        for name in names.split(", ") {
            let name = name.trim_end_matches('/').to_owned();
            assert_eq!(layers.insert(name, number), None, "{line}");
        }
    }
    layers
}

/// The module at the top of the library that a file belongs to.
fn module(path: &Path) -> String {
    let below = path.strip_prefix("spotsim/src").unwrap();
    let first = below.components().next().unwrap().as_os_str();
    let name = Path::new(first).file_stem().unwrap();
    name.to_str().unwrap().to_owned()
}

/// The names directly under `crate` that code uses, in whatever form it is written: as a path,
/// or in the braces of a `use`.
fn names_under_crate(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let mut depth = 0;
        let mut word = String::new();
        let mut is_first = true;
        for letter in code[at + root.len()..].chars() {
            match letter {
                letter if letter.is_alphanumeric() || letter == '_' => word.push(letter),
                '{' => depth += 1,
                _ if letter.is_whitespace() && depth > 0 && word.is_empty() => {}
                // Of a path its first word counts, and in braces each that begins a path.
                _ => {
                    let word = std::mem::take(&mut word);
                    if is_first && depth <= 1 && !word.is_empty() {
                        names.insert(word);
                    }
                    match letter {
                        ',' if depth == 1 => is_first = true,
                        '}' => depth -= 1,
                        _ => is_first = false,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    names
}

#[test]
fn names_under_crate_are_found_in_every_form() {
    let code = "use crate::one;\nuse crate::{\n    two,\n    three::{self, inner::Deep},\n    \
                four::{a, b}, five as six,\n};\nfn f() { crate::seven::eight() }\n\
                use $crate::nine::X; let x: my_crate::Ten;";
    let found = names_under_crate(code);
    let expected = ["one", "two", "three", "four", "five", "seven", "nine"];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn modules_use_those_below_them() {
    let layers = layers();
    let files = sources("spotsim/src");
    let modules: BTreeSet<_> = files.iter().map(|path| module(path)).collect();
    let listed: BTreeSet<_> = layers.keys().cloned().collect();
    let roots = ["lib", "main"].map(str::to_owned);
    let besides: BTreeSet<_> = modules.difference(&listed).cloned().collect();
    assert_eq!(besides, roots.into(), "what is not in the list");
    assert!(listed.is_subset(&modules), "{listed:?} of {modules:?}");
    let mut uses = 0;
    for path in &files {
        let module = module(path);
        let Some(layer) = layers.get(&module) else {
            continue;
        };
        let code = code(path);
        for used in names_under_crate(&code) {
            let below = layers.get(&used).unwrap_or_else(|| {
                panic!("{}: crate::{used} is no module", path.display());
            });
            uses += 1;
            let allowed = used == module || below > layer;
            assert!(allowed, "{module} uses {used}: {}", path.display());
        }
        // The other way to the top: from a module there by one step, from others by more.
        let stem = path.file_stem().unwrap();
        let is_top = stem == module.as_str() || (stem == "mod" && path.components().count() == 4);
        let steps = if is_top { "" } else { r"super::" };
        let names = layers.keys().cloned().collect::<Vec<_>>().join("|");
        let pattern = Regex::new(&format!(r"\b{steps}super::({names})::")).unwrap();
        let found = pattern.find(&code).map(|found| found.as_str());
        assert_eq!(found, None, "{}: write crate::", path.display());
    }
    assert!(uses > 50, "{uses} uses: is this test still true?");
}
