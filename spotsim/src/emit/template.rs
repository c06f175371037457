//! The body of a webhook, made of an event's fields.

use std::{collections::BTreeSet, iter::Peekable, str::Chars, str::FromStr};

use serde_json::Value;

use crate::event::Event;

/// JSON in whose strings `{field}` stands for a field of the event, as `{detail.instance-id}`.
/// `{{` and `}}` stand for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Value);

/// A part of a string.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A field's name.
    Field(String),
}

impl Template {
    /// The body for an event. A field that it does not have is empty; one that is no string is
    /// written as JSON.
    pub fn fill(&self, event: &Event) -> String {
        let Self(template) = self;
        let mut body = template.clone();
        let event = serde_json::to_value(event).unwrap_or_default();
        each_string(&mut body, &mut |text| {
            // That it can be read was checked.
            let parts = parts(text).unwrap_or_default();
            let filled = parts.into_iter().map(|part| match part {
                Part::Text(text) => text,
                Part::Field(name) => match event.pointer(&pointer(&name)) {
                    None => String::new(),
                    Some(Value::String(value)) => value.clone(),
                    Some(value) => value.to_string(),
                },
            });
            *text = filled.collect();
        });
        body.to_string()
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut template: Value =
            serde_json::from_str(text).map_err(|error| format!("a template is JSON: {error}"))?;
        let known = Event::fields();
        let mut problem = None;
        each_string(&mut template, &mut |text| {
            if let Err(error) = check(text, &known) {
                problem.get_or_insert(error);
            }
        });
        problem.map_or(Ok(Self(template)), Err)
    }
}

fn check(text: &str, known: &BTreeSet<String>) -> Result<(), String> {
    for part in parts(text)? {
        if let Part::Field(name) = part
            && !known.contains(&name)
        {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            return Err(format!(
                "events have no field {name:?}; use one of {}, and {{{{ for a brace",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.next_if_eq(&letter).is_some() => plain.push(letter),
            '{' => {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Field(name(&mut letters)?));
            }
            '}' => return Err(format!("}} without {{ in {text:?}; write }}}} for a brace")),
            letter => plain.push(letter),
        }
    }
    parts.push(Part::Text(plain));
    Ok(parts)
}

fn name(letters: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut name = String::new();
    for letter in letters {
        if letter == '}' {
            return Ok(name);
        }
        name.push(letter);
    }
    Err(format!("{{{name:?} is not closed; write {{{{ for a brace"))
}

/// The JSON pointer (RFC 6901) for a field's name.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('.', "/"))
}

/// Changes each string in a value, but for the names of members.
fn each_string(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => {
            for item in items {
                each_string(item, change);
            }
        }
        Value::Object(members) => {
            for member in members.values_mut() {
                each_string(member, change);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        event::Told,
        instance::{Identity, Network},
        timeline::{Action, Code, Occasion, ScheduledEvent, State},
    };

    fn event(occasion: Occasion) -> Event {
        let identity = Identity {
            instance: "i-1234567890abcdef0".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-2".to_owned(),
            partition: "aws".to_owned(),
            zone: String::new(),
            instance_type: String::new(),
            image: String::new(),
            architecture: String::new(),
            private_ip: String::new(),
            network: Network::default(),
            tags: BTreeSet::new().into_iter().collect(),
        };
        let at = "2026-03-01T12:00:00Z".parse().unwrap();
        Event::of(&Told::Occasion(occasion), &identity, at).unwrap()
    }

    fn filled(template: &str, event: &Event) -> Value {
        let template: Template = template.parse().unwrap();
        serde_json::from_str(&template.fill(event)).unwrap()
    }

    #[test]
    fn fields_take_the_place_of_their_names() {
        let event = event(Occasion::Notice(Action::Stop));
        let template = r#"{
            "text": "{detail-type}: {detail.instance-id} will {detail.instance-action}",
            "blocks": [{"type": "mrkdwn", "n": 1}, "{region}", true, null],
            "{account}": "{resources.0}"
        }"#;
        let expected = json!({
            "text": "EC2 Spot Instance Interruption Warning: i-1234567890abcdef0 will stop",
            "blocks": [{"type": "mrkdwn", "n": 1}, "us-east-2", true, null],
            "{account}": "arn:aws:ec2:us-east-2:123456789012:instance/i-1234567890abcdef0",
        });
        assert_eq!(filled(template, &event), expected);
        // What it is filled with is not taken for a template.
        assert_eq!(filled(r#""{{region}} {{""#, &event), "{region} {");
        let detail = r#"{"instance-action":"stop","instance-id":"i-1234567890abcdef0"}"#;
        assert_eq!(filled(r#""{detail}""#, &event), detail);
        // Another type's.
        assert_eq!(filled(r#""[{detail.state}]""#, &event), "[]");
    }

    #[test]
    fn what_is_filled_in_cannot_break_the_json() {
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        let description = "say \"hi\"\n\\ {region} \u{7} ü";
        let event = event(Occasion::Scheduled(
            ScheduledEvent {
                code: Code::SystemReboot,
                appears: now,
                not_before: now,
                not_after: None,
                not_before_deadline: None,
                end: None,
                leaves: None,
                id: "instance-event-1".to_owned(),
                description: description.to_owned(),
            },
            State::Active,
        ));
        let name = "detail.eventDescription.0.latestDescription";
        let template = format!(r#"{{"text": "{{{name}}}"}}"#);
        assert_eq!(filled(&template, &event), json!({ "text": description }));
    }

    #[test]
    fn a_bad_template_says_what_is_wrong() {
        for (template, expected) in [
            ("", "a template is JSON"),
            ("hello {region}", "a template is JSON"),
            (r#"{"text": {region}}"#, "a template is JSON"),
            (
                r#"{"text": "{instance-id}"}"#,
                "no field \"instance-id\"; use one of account, detail,",
            ),
            (r#"{"text": "{}"}"#, "no field \"\""),
            (r#"{"text": "{detail/state}"}"#, "no field"),
            (r#"{"text": "{region"}"#, "is not closed"),
            (r#"{"text": "region}"}"#, "} without {"),
            (r#"["{regionn}"]"#, "no field"),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
