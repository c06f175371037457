//! Experiment templates of AWS FIS, JSON or YAML.

use std::{fs, path::Path, process};

use serde_json::json;
use spotsim::experiment::{Reading, Template};

pub fn check(input: &[u8]) {
    let reading = Reading {
        resource: None,
        allow_short: true,
    };
    // Without an extension it is told by its text which of the two it is.
    let file = std::env::temp_dir().join(format!("spotsim-fuzz-{}", process::id()));
    let template = read(&file, input, reading);
    let again = template.map(|template| {
        let given = match template.given.get("Actions") {
            None => template.given.clone(),
            // Of CloudFormation's resource these are the properties.
            Some(_) => json!({
                "Type": "AWS::FIS::ExperimentTemplate",
                "Properties": template.given,
            }),
        };
        let again = read(&file, given.to_string().as_bytes(), reading);
        (template, again)
    });
    fs::remove_file(&file).expect("it was written");
    match again {
        Ok((template, again)) => {
            // What is recorded of an experiment is its template, in the style that it has.
            let again = again.expect("what was given can be given again");
            assert_eq!(again.actions, template.actions);
            assert_eq!(again.targets, template.targets);
        }
        Err(error) => {
            let is_a_line = !error.is_empty() && !error.contains('\n');
            assert!(is_a_line, "{error:?}");
        }
    }
}

fn read(file: &Path, text: &[u8], reading: Reading<'_>) -> Result<Template, String> {
    fs::write(file, text).expect("a temporary file can be written");
    Template::read(file, reading).map_err(|error| format!("{error:#}"))
}
