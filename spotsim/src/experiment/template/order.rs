//! Which actions come after which.

use std::collections::BTreeMap;

use super::{
    Action,
    field::{Field, Invalid},
};
use crate::document::printable;

/// Checks that each action comes after such as there are, and none after itself.
pub fn check(
    entries: &[(&str, Field<'_>)],
    actions: &BTreeMap<String, Action>,
) -> Result<(), Invalid> {
    for (name, field) in entries {
        let path = |problem: String| Invalid {
            path: format!("{}.{}", field.path, field.style.spell("startAfter")),
            problem,
        };
        for before in &actions[*name].after {
            if !actions.contains_key(before) {
                let known: Vec<_> = actions.keys().map(|name| printable(name)).collect();
                return Err(path(format!(
                    "there is no action {:?}; there are {}",
                    printable(before),
                    known.join(", ")
                )));
            }
        }
    }
    for (name, field) in entries {
        if let Some(cycle) = cycle(name, actions) {
            let names: Vec<_> = cycle.iter().map(|name| printable(name)).collect();
            return Err(Invalid {
                path: format!("{}.{}", field.path, field.style.spell("startAfter")),
                problem: format!("each waits for the next, for ever: {}", names.join(" -> ")),
            });
        }
    }
    Ok(())
}

/// The way from an action back to itself, if there is one.
fn cycle<'a>(start: &'a str, actions: &'a BTreeMap<String, Action>) -> Option<Vec<&'a str>> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for before in &actions[name].after {
            if before == start {
                return Some(way(start, name, &seen));
            }
            if !seen.contains_key(before.as_str()) {
                seen.insert(before, name);
                open.push(before);
            }
        }
    }
    None
}

/// The steps from `start` to `last`, and to `start` again, where each was come to from another.
fn way<'a>(start: &'a str, last: &'a str, from: &BTreeMap<&'a str, &'a str>) -> Vec<&'a str> {
    let mut way = vec![start];
    let mut step = last;
    while step != start {
        way.push(step);
        step = from[step];
    }
    way.push(start);
    way.reverse();
    way
}
