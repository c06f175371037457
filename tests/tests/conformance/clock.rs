//! Listings and leaves agree while announced things come and go.

use std::time::{Duration, Instant};

use super::{
    case::{Group, get},
    service::TOP,
    world::{Recorded, Serves, Synthetic, World, Worlds},
};
use tests::Lab;

/// Everything appears after two seconds; notice and recommendation go after two more.
const ANNOUNCED: [&str; 10] = [
    "--notice-after",
    "2s",
    "--lead",
    "2s",
    "--rebalance-after",
    "2s",
    "--lifecycle-state",
    "InService@2s",
    "--after-deadline",
    "withdraw",
];

/// Until everything has come and gone, on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

/// A place that is listed exactly while there is something in it, and what is in it.
const PLACES: [(&str, &str, &str); 4] = [
    (
        "/latest/meta-data/",
        "spot/",
        "/latest/meta-data/spot/instance-action",
    ),
    (
        "/latest/meta-data/spot/",
        "termination-time",
        "/latest/meta-data/spot/termination-time",
    ),
    (
        "/latest/meta-data/events/",
        "recommendations/",
        "/latest/meta-data/events/recommendations/rebalance",
    ),
    (
        "/latest/meta-data/",
        "autoscaling/",
        "/latest/meta-data/autoscaling/target-lifecycle-state",
    ),
];

/// The body of a 200, and nothing of a 404.
fn read(world: &dyn World, path: &str) -> Option<String> {
    let (request, _) = get(path).written("", "");
    let answer = String::from_utf8(world.send(&request)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    match head.split(' ').nth(1) {
        Some("200") => Some(body.to_owned()),
        Some("404") => None,
        _ => panic!("{path}: {head}"),
    }
}

/// What a path was, one after the other.
#[derive(Default)]
struct Seen(Vec<Option<String>>);

impl Seen {
    fn add(&mut self, value: Option<String>) {
        let Self(values) = self;
        if values.last() != Some(&value) {
            values.push(value);
        }
    }
}

/// The listing of `meta-data/`, with some more names and some fewer.
fn top(more: &[&str], without: &str) -> Option<String> {
    let mut names: Vec<_> = TOP.iter().chain(more).copied().collect();
    names.retain(|name| *name != without);
    names.sort_unstable();
    names.dedup();
    Some(names.join("\n"))
}

fn agree(worlds: &dyn Worlds, has_events: bool) {
    let mut group = Group::new("come and go", &ANNOUNCED, Vec::new());
    let mut absent = "";
    if !has_events {
        group = group.change("meta-data/events", None);
        absent = "events/";
    }
    let world = worlds.start(&group);
    let (mut tops, mut events) = (Seen::default(), Seen::default());
    let began = Instant::now();
    loop {
        tops.add(read(&*world, "/latest/meta-data/"));
        events.add(read(&*world, "/latest/meta-data/events/"));
        for (directory, name, leaf) in PLACES {
            let before = read(&*world, leaf).is_some();
            let listing = read(&*world, directory).unwrap_or_default();
            let after = read(&*world, leaf).is_some();
            // If it changed meanwhile, nobody can tell.
            if before == after {
                let listed = listing.lines().any(|line| line == name);
                assert_eq!(listed, before, "{leaf}, in {directory}: {listing:?}");
            }
        }
        if tops.0.len() >= 3 && events.0.len() >= 3 {
            break;
        }
        assert!(
            began.elapsed() < WITHIN,
            "only {:?} and {:?} were seen",
            tops.0,
            events.0
        );
    }
    let both = ["autoscaling/", "spot/"];
    let own = has_events.then(|| "maintenance/".to_owned());
    let Seen(events) = events;
    let recommended = match has_events {
        true => "maintenance/\nrecommendations/",
        false => "recommendations/",
    };
    assert_eq!(events, [own.clone(), Some(recommended.to_owned()), own]);
    // `events/` is there for the recommendation alone, if need be.
    let during = top(&both, "");
    let Seen(tops) = tops;
    let expected = [top(&[], absent), during, top(&["autoscaling/"], absent)];
    assert_eq!(tops, expected);
}

#[test]
fn listings_agree_with_the_clock_in_serve() {
    agree(&Serves::new("clock"), true);
}

#[test]
fn listings_agree_with_the_clock_over_the_synthetic_instance() {
    let Some(lab) = Lab::new() else { return };
    agree(&Synthetic(lab), true);
}

#[test]
fn listings_agree_with_the_clock_over_a_recorded_instance() {
    let Some(lab) = Lab::new() else { return };
    agree(&Recorded(lab), true);
}

#[test]
fn a_directory_that_the_instance_has_not_comes_and_goes() {
    let Some(lab) = Lab::new() else { return };
    agree(&Recorded(lab), false);
}
