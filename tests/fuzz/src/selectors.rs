//! Label selectors: the first line, then a pod's labels as `KEY=VALUE`, one a line.

use std::collections::BTreeMap;

use spotsim::target::Selector;

pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let (selector, labels) = text.split_once('\n').unwrap_or((text, ""));
    match selector.parse::<Selector>() {
        Ok(selector) => {
            let written = selector.to_string();
            let again: Selector = written.parse().expect("what is written can be read");
            assert_eq!(again, selector, "{written:?}");
            let labels: BTreeMap<String, String> = labels
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            assert_eq!(selector.matches(&labels), again.matches(&labels));
        }
        Err(error) => {
            let is_a_line = !error.is_empty() && !error.contains('\n');
            assert!(is_a_line, "{error:?}");
        }
    }
}
