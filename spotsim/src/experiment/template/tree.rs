//! A file as it was written: values with CloudFormation's short tags, in the order of the file.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::Tagged;

use crate::document::{Format, Invalid};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    /// With keys that come twice, if the file has such.
    Map(Vec<(String, Node)>),
    /// What is only known when CloudFormation deploys it: `!Ref X` is `("Ref", X)`, `!Sub X` is
    /// `("Fn::Sub", X)`. The long form is a map like any other.
    Intrinsic(String, Box<Node>),
}

impl Node {
    /// Reads a text.
    pub fn parse(text: &str, format: Format) -> Result<Self, Invalid> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let Tagged(node, tag) = match format {
            Format::Json => serde_json::from_str::<Tagged<Self>>(text).map_err(Invalid::from)?,
            Format::Yaml | Format::Toml => yaml(text)?,
        };
        Ok(node.tagged(tag))
    }

    /// What kind of value it is, in an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Intrinsic(..) => "a function of CloudFormation",
        }
    }

    /// The function's name, if CloudFormation computes it.
    pub fn intrinsic(&self) -> Option<&str> {
        self.function().map(|(name, _)| name)
    }

    /// The function's name and arguments.
    pub fn function(&self) -> Option<(&str, &Self)> {
        match self {
            Self::Intrinsic(name, value) => Some((name, value)),
            Self::Map(entries) => match &entries[..] {
                [(name, value)] if name == "Ref" || name.starts_with("Fn::") => Some((name, value)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                let entry = entries.iter().find(|(name, _)| name == key);
                entry.map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// As JSON, with the long form of the short tags.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(value) => value.clone().into(),
            Self::Text(text) => text.clone().into(),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_json()));
                Value::Object(entries.collect())
            }
            Self::Intrinsic(name, value) => {
                Value::Object(Map::from_iter([(name.clone(), value.to_json())]))
            }
        }
    }

    /// With the tag that stands before it. Those of YAML itself say what it is anyway.
    fn tagged(self, tag: Option<String>) -> Self {
        match tag.as_deref().and_then(|tag| tag.strip_prefix('!')) {
            None | Some("") => self,
            Some(name @ ("Ref" | "Condition")) => Self::Intrinsic(name.to_owned(), Box::new(self)),
            Some(name) => Self::Intrinsic(format!("Fn::{name}"), Box::new(self)),
        }
    }
}

fn yaml(text: &str) -> Result<Tagged<Node>, Invalid> {
    // As other files of YAML are read, but with tags.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(Invalid::from)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(value);
        Ok(number.map_or_else(|| Node::Text(value.to_string()), Node::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(Tagged(value, tag)) = values.next_element::<Tagged<Node>>()? {
            list.push(value.tagged(tag));
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some((key, Tagged(value, tag))) = entries.next_entry::<String, Tagged<Node>>()? {
            map.push((key, value.tagged(tag)));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_tags_are_functions() {
        let text = "\
            role: !GetAtt Role.Arn\n\
            text: !Sub '${A}-b'\n\
            list: [!Ref X, plain, !!str 5]\n\
            join: !Join ['', [a, !Ref B]]\n\
            map: !Transform {Name: x}\n\
            number: 5\n\
            account: 012345678901\n\
            none:\n";
        let node = Node::parse(text, Format::Yaml).unwrap();
        assert_eq!(node.get("role").unwrap().intrinsic(), Some("Fn::GetAtt"));
        assert_eq!(
            node.to_json(),
            json!({
                "role": {"Fn::GetAtt": "Role.Arn"},
                "text": {"Fn::Sub": "${A}-b"},
                "list": [{"Ref": "X"}, "plain", "5"],
                "join": {"Fn::Join": ["", ["a", {"Ref": "B"}]]},
                "map": {"Fn::Transform": {"Name": "x"}},
                "number": 5,
                "account": "012345678901",
                "none": null,
            })
        );
    }

    #[test]
    fn the_long_form_is_known_too() {
        let node = Node::parse(
            r#"{"a": {"Ref": "X"}, "b": {"Ref": 1, "c": 2}}"#,
            Format::Json,
        );
        let node = node.unwrap();
        assert_eq!(node.get("a").unwrap().intrinsic(), Some("Ref"));
        assert_eq!(node.get("b").unwrap().intrinsic(), None);
        assert_eq!(node.intrinsic(), None);
    }
}
