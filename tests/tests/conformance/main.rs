//! One table of requests and answers, held against `serve`, against an interception with the
//! synthetic instance and against one with a recorded instance; and, where spotsim adds
//! nothing, against that recording itself.

mod announced;
mod case;
mod clock;
mod service;
mod world;

use std::{fmt::Write as _, thread::sleep, time::Duration};

use case::{GOOD_FOR, Group, put};
use tests::{Lab, say};
use world::{Itself, Recorded, Serves, Synthetic, World, Worlds};

fn all() -> Vec<Group> {
    let mut groups = service::groups();
    groups.extend(announced::groups());
    groups
}

fn holds(worlds: &dyn Worlds, groups: &[Group]) {
    let mut wrong = String::new();
    let mut cases = 0;
    for group in groups {
        let world = worlds.start(group);
        cases += group.cases.len();
        differences(group, &*world, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases > 0);
    say(&format!(
        "conformance: {cases} requests in {} states",
        groups.len()
    ));
}

fn differences(group: &Group, world: &dyn World, wrong: &mut String) {
    let names = |token: &str| group.cases.iter().any(|case| case.request.names(token));
    let token = |asked: &str, ttl: &str| match names(asked) {
        true => issue(world, ttl),
        false => String::new(),
    };
    let expired = token("{expired}", "1");
    let good = token("{good}", &GOOD_FOR.to_string());
    if !expired.is_empty() {
        sleep(Duration::from_millis(1_050));
    }
    for case in &group.cases {
        let (bytes, shown) = case.request.written(&good, &expired);
        if let Err(difference) = case.answer.compare(&world.send(&bytes)) {
            let _ = write!(wrong, "\n== {}\n{shown}\n-- {difference}\n", group.name);
        }
    }
}

/// A token from this world.
fn issue(world: &dyn World, ttl: &str) -> String {
    let (request, _) = put("/latest/api/token").ttl(ttl).written("", "");
    let answer = String::from_utf8(world.send(&request)).unwrap();
    let (head, token) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    token.to_owned()
}

#[test]
fn serve_conforms() {
    let worlds = Serves::new("serve");
    holds(&worlds, &all());
}

#[test]
fn an_interception_with_the_synthetic_instance_conforms() {
    let Some(lab) = Lab::new() else { return };
    let worlds = Synthetic(lab);
    holds(&worlds, &all());
}

#[test]
fn an_interception_with_a_recorded_instance_conforms() {
    let Some(lab) = Lab::new() else { return };
    let worlds = Recorded(lab);
    holds(&worlds, &all());
}

#[test]
fn the_recording_is_what_the_table_says() {
    let Some(lab) = Lab::new() else { return };
    holds(&Itself(lab), &service::groups());
}
