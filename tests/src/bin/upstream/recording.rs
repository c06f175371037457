//! What one instance says at each path: a file in the form of spotsim's `--instance`, so that
//! the synthetic instance can be given the same.

use std::fs;

use serde_json::{Map, Value};

use crate::answers::{Answer, octets, text};

/// As `GET /` lists them.
const VERSIONS: &str = "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n\
    2008-02-01\n2008-09-01\n2009-04-04\n2011-01-01\n2011-05-01\n2012-01-12\n2014-02-25\n\
    2014-11-05\n2015-10-20\n2016-04-19\n2016-06-30\n2016-09-02\n2018-03-28\n2018-08-17\n\
    2018-09-24\n2019-10-01\n2020-10-27\n2021-01-03\n2021-03-23\n2021-07-15\n2022-09-24\n\
    2024-04-11\nlatest";

/// The trees `meta-data` and `dynamic`, and `user-data`.
pub struct Recording(Map<String, Value>);

impl Recording {
    pub fn read(file: &str) -> Self {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut tree: Map<_, _> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        // Not of the instance, but of what spotsim is to lay the file over.
        tree.remove("base");
        Self(tree)
    }

    /// The document or listing at a path; doubled slashes count as one, and one at the end for
    /// nothing.
    pub fn find(&self, path: &str) -> Option<Answer> {
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        let Some(version) = parts.next() else {
            return Some(text(VERSIONS));
        };
        if !is_version(version) {
            return None;
        }
        let Self(tree) = self;
        if parts.peek().is_none() {
            // The root alone shows its directories bare.
            let names: Vec<_> = tree.keys().map(String::as_str).collect();
            return Some(text(&names.join("\n")));
        }
        let is_user_data = parts.peek() == Some(&"user-data");
        let mut directory = tree;
        loop {
            let name = parts.next()?;
            let found = child(directory, name)?;
            match (found, parts.peek()) {
                (Value::Object(below), None) => return Some(text(&listing(below))),
                (Value::Object(below), Some(_)) => directory = below,
                (Value::String(value), None) if is_user_data => {
                    return Some(octets(value.clone().into_bytes()));
                }
                (Value::String(value), None) => return Some(text(value)),
                _ => return None,
            }
        }
    }
}

/// Of dates there are more than are listed.
fn is_version(version: &str) -> bool {
    let is_date = || {
        let digits = version.split('-').map(|number| {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some(number.len())
        });
        digits.eq([4, 2, 2].map(Some))
    };
    VERSIONS.lines().any(|listed| listed == version) || is_date()
}

/// Public keys are listed as `0=NAME` and found as `0`.
fn child<'a>(directory: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let is_it = |listed: &str| match listed.split_once('=') {
        Some((number, _)) => number == name,
        None => listed == name,
    };
    let mut children = directory.iter();
    children.find_map(|(listed, child)| is_it(listed).then_some(child))
}

fn listing(directory: &Map<String, Value>) -> String {
    let shown = directory.iter().map(|(name, child)| match child {
        Value::Object(_) if !name.contains('=') => format!("{name}/"),
        _ => name.clone(),
    });
    shown.collect::<Vec<_>>().join("\n")
}
