//! `spotsim serve --save-instance`: what an instance says goes into a file, and comes out of it
//! again as it was, but for what is secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use spotsim::instance::Instance;
use tests::{Finished, Response, Running, Scratch, get_from};

/// What nobody may find in the file: each path, and what is there.
const SECRETS: [(&str, &str); 5] = [
    (
        "meta-data/iam/security-credentials/upstream-role",
        "SECRET-OF-THE-ROLE",
    ),
    (
        "meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
        "SECRET-OF-THE-INSTANCE",
    ),
    ("dynamic/instance-identity/signature", "SECRET-SIGNATURE"),
    ("dynamic/instance-identity/pkcs7", "SECRET-PKCS7"),
    ("user-data", "SECRET-USER-DATA"),
];

/// What is there today and not tomorrow.
const PASSING: [&str; 3] = [
    "meta-data/spot/instance-action",
    "meta-data/autoscaling/target-lifecycle-state",
    "meta-data/events/recommendations/rebalance",
];

/// Texts that a file may lose.
const ODD: [(&str, &str); 4] = [
    ("meta-data/tags/instance/empty", ""),
    ("meta-data/tags/instance/lines", "one\n two \n\n"),
    (
        "meta-data/tags/instance/quoted",
        "\"a\\b\": #c 'd' \u{2028}é",
    ),
    ("meta-data/tags/instance/number", "012"),
];

/// The recorded instance, with more in it.
fn tree() -> Value {
    let recording = include_str!("../recordings/instance.json");
    let mut tree: Value = serde_json::from_str(recording).unwrap();
    let passing = PASSING.map(|path| (path, "SECRET-PASSING"));
    for (path, value) in SECRETS.into_iter().chain(ODD).chain(passing) {
        let mut place = &mut tree;
        for name in path.split('/') {
            let place_now = place.as_object_mut().unwrap();
            place = place_now.entry(name).or_insert_with(|| json!({}));
        }
        *place = value.into();
    }
    tree
}

/// The documents below a place in a tree, by the paths at which they are found.
fn documents(place: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    match place {
        Value::String(text) => {
            found.insert(path.to_owned(), text.clone());
        }
        Value::Object(below) => {
            for (name, place) in below {
                // Public keys are listed as `0=NAME` and found as `0`.
                let name = name.split('=').next().unwrap();
                documents(place, &format!("{path}/{name}"), found);
            }
        }
        _ => panic!("{path}: {place}"),
    }
}

/// The documents that must be in the file: all but what is secret or passes.
fn kept(tree: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for root in ["meta-data", "dynamic"] {
        documents(&tree[root], root, &mut all);
    }
    let left_out =
        |path: &str| PASSING.contains(&path) || SECRETS.iter().any(|(secret, _)| *secret == path);
    all.retain(|path, _| !left_out(path));
    all
}

struct Saved {
    scratch: Scratch,
    tree: Value,
    _upstream: Running,
    upstream: std::net::SocketAddr,
    finished: Finished,
}

/// Saves the instance of a server on loopback to a file of this name.
fn save(name: &str) -> Saved {
    let scratch = Scratch::new();
    let tree = tree();
    let (process, upstream) = scratch.recorded(&tree.to_string());
    let finished = save_from(&scratch, &format!("http://{upstream}"), name);
    Saved {
        scratch,
        tree,
        _upstream: process,
        upstream,
        finished,
    }
}

fn save_from(scratch: &Scratch, upstream: &str, name: &str) -> Finished {
    scratch.spotsim(&["serve", "--upstream", upstream, "--save-instance", name])
}

/// An answer without its dates, which are those of whoever gives it.
fn undated(response: &Response) -> String {
    let head = response.head();
    let lines = head.lines().filter(|line| {
        let dates = ["Date: ", "Last-Modified: "];
        !dates.iter().any(|date| line.starts_with(date))
    });
    let head = lines.collect::<Vec<_>>().join("\n");
    format!("{head}\n\n{}", response.text())
}

fn comes_out_as_it_went_in(name: &str) {
    let Saved {
        scratch,
        tree,
        upstream,
        finished,
        ..
    } = &save(name);
    let kept = kept(tree);
    assert!(kept.len() > 15, "{kept:?}");
    let said = finished.expect("serve --save-instance");
    assert_eq!(
        said,
        format!("saved: {name}, {} documents\n", kept.len() - 2)
    );
    let file = scratch.directory().join(name);
    is_for_its_owner_alone(&file);

    // In the file are these, two lists of no events, and the role that is known by its name.
    let instance = Instance::read(&file, Timestamp::now()).unwrap();
    let keys: BTreeSet<_> = instance.keys().map(str::to_owned).collect();
    let mut expected: BTreeSet<_> = kept.keys().cloned().collect();
    expected.insert("meta-data/iam/security-credentials/upstream-role".to_owned());
    assert_eq!(keys, expected);

    let served = scratch.serve(&["--hold", "--instance", name]);
    for (path, value) in &kept {
        let theirs = get_from(*upstream, &format!("/latest/{path}"));
        assert_eq!(theirs.text(), *value, "{path}: is this test still true?");
        let ours = served.get(&format!("/latest/{path}"));
        assert_eq!(undated(&ours), undated(&theirs), "{path}");
    }
    for listing in [
        "public-keys/",
        "placement/",
        "tags/instance",
        "iam/security-credentials/",
    ] {
        let path = format!("/latest/meta-data/{listing}");
        let (ours, theirs) = (served.get(&path), get_from(*upstream, &path));
        assert_eq!(undated(&ours), undated(&theirs), "{path}");
    }
    for (path, _) in SECRETS {
        let answer = served.get(&format!("/latest/{path}"));
        assert!(!answer.text().contains("SECRET"), "{path}: {answer:?}");
    }
    let made_up = served.get(&format!("/latest/{}", SECRETS[0].0));
    let credentials: Value = serde_json::from_str(&made_up.text()).unwrap();
    assert_eq!(credentials["Code"], "Success");
}

fn is_for_its_owner_alone(file: &Path) {
    let mode = fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{}", file.display());
    let text = fs::read_to_string(file).unwrap();
    assert!(!text.contains("SECRET"), "{text}");
    for (path, _) in SECRETS {
        let key = path.split_once('/').map_or(path, |(_, key)| key);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut lines = lines.filter(|line| line.contains(key));
        assert_eq!(lines.next(), None, "{path}");
    }
    // Nothing else is left beside it.
    let beside = fs::read_dir(file.parent().unwrap()).unwrap();
    let names: BTreeSet<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    let expected = [file.file_name().unwrap(), "recording.json".as_ref()];
    assert_eq!(names, expected.map(ToOwned::to_owned).into());
}

#[test]
fn an_instance_comes_out_of_a_yaml_file_as_it_went_in() {
    comes_out_as_it_went_in("instance.yaml");
}

#[test]
fn an_instance_comes_out_of_a_toml_file_as_it_went_in() {
    comes_out_as_it_went_in("instance.toml");
}

/// Checks that it ended with this code and one line that begins and goes on so.
fn is_refused(finished: &Finished, code: i32, line: &str) {
    let Finished { stderr, .. } = finished;
    assert_eq!(finished.code, code, "{stderr}");
    assert_eq!(finished.text(), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with(line), "{stderr}");
}

#[test]
fn a_file_that_is_there_stays_as_it_is() {
    let scratch = Scratch::new();
    let (_upstream, address) = scratch.recorded(&tree().to_string());
    let file = scratch.write("mine.yaml", "mine\n");
    let finished = save_from(&scratch, &format!("http://{address}"), "mine.yaml");
    is_refused(
        &finished,
        1,
        "spotsim: error: mine.yaml exists; it is not replaced",
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine\n");
}

#[test]
fn what_cannot_be_saved() {
    let scratch = Scratch::new();
    for upstream in ["none", "synthetic"] {
        let finished = save_from(&scratch, upstream, "instance.yaml");
        is_refused(&finished, 2, "spotsim: error: there is no IMDS to ask");
    }
    // A server that says nothing of an instance, and none at all.
    let (nobody, address) = scratch.recorded("{}");
    let finished = save_from(&scratch, &format!("http://{address}"), "instance.yaml");
    is_refused(&finished, 1, "spotsim: error: cannot save the instance of ");
    nobody.stop();
    let finished = save_from(&scratch, &format!("http://{address}"), "instance.yaml");
    is_refused(&finished, 1, "spotsim: error: cannot save the instance of ");
    let finished = save_from(&scratch, &format!("http://{address}"), "instance.json");
    is_refused(&finished, 1, "spotsim: error: cannot save an instance as");
    for more in [["--listen", "127.0.0.1:0"], ["--action", "stop"]] {
        let args = ["serve", "--upstream", "none", "--save-instance", "x.yaml"];
        let finished = scratch.spotsim(&[&args[..], &more].concat());
        is_refused(&finished, 2, "spotsim: error: ");
    }
    let names = fs::read_dir(scratch.directory()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["recording.json"]);
}
