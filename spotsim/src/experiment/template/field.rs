//! A place in a template: what is there, and its path as the file spells it.

use std::{collections::BTreeMap, fmt};

use super::tree::Node;
use crate::document::printable;

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// As `actions.interrupt.parameters`; empty for the whole.
    pub path: String,
    pub problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(problem)
    }
}

impl std::error::Error for Invalid {}

/// How the fields of a template are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `actionId`, as in the API.
    Api,
    /// `ActionId`.
    CloudFormation,
}

impl Style {
    /// A field's name of the API, in this style.
    pub fn spell(self, name: &str) -> String {
        let mut letters = name.chars();
        match (self, letters.next()) {
            (Self::CloudFormation, Some(first)) => {
                first.to_ascii_uppercase().to_string() + letters.as_str()
            }
            _ => name.to_owned(),
        }
    }
}

/// A value and its path.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    pub node: &'a Node,
    pub path: String,
    pub style: Style,
}

/// The fields of an object, by their names in the API.
pub struct Fields<'a> {
    of: Field<'a>,
    found: BTreeMap<&'static str, Field<'a>>,
}

impl<'a> Field<'a> {
    pub fn fault(&self, problem: impl Into<String>) -> Invalid {
        Invalid {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    /// What is under a key of it.
    pub fn child(&self, key: &str, node: &'a Node) -> Self {
        let is_plain = |letter: char| !letter.is_whitespace() && !"\"[].".contains(letter);
        let key = printable(key);
        let path = match &self.path {
            path if !key.chars().all(is_plain) || key.is_empty() => format!("{path}[{key:?}]"),
            path if path.is_empty() => key,
            path => format!("{path}.{key}"),
        };
        Self {
            node,
            path,
            style: self.style,
        }
    }

    fn wrong(&self, expected: &str) -> Invalid {
        match self.node.intrinsic() {
            Some(name) => self.fault(format!(
                "{} is only known to CloudFormation: give the deployed template, as \
                 `aws fis get-experiment-template` prints it",
                printable(name)
            )),
            None => self.fault(format!("must be {expected}, not {}", self.node.kind())),
        }
    }

    /// A map whose keys are the user's, in the order of the file.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, Invalid> {
        let (Node::Map(entries), None) = (self.node, self.node.intrinsic()) else {
            return Err(self.wrong("a map"));
        };
        let mut seen = BTreeMap::new();
        for (key, value) in entries {
            let child = self.child(key, value);
            if seen.insert(key, ()).is_some() {
                return Err(child.fault("is there twice"));
            }
        }
        let entries = entries.iter();
        Ok(entries
            .map(|(key, value)| (key.as_str(), self.child(key, value)))
            .collect())
    }

    /// An object with some of these fields, and no others.
    pub fn fields(&self, known: &[&'static str]) -> Result<Fields<'a>, Invalid> {
        let mut found = BTreeMap::new();
        for (key, field) in self.entries()? {
            let name = known.iter().find(|name| self.style.spell(name) == key);
            let Some(name) = name else {
                let known: Vec<_> = known.iter().map(|name| self.style.spell(name)).collect();
                let problem = format!("unknown field; there are {}", known.join(", "));
                return Err(field.fault(problem));
            };
            found.insert(*name, field);
        }
        let of = self.clone();
        Ok(Fields { of, found })
    }

    /// The members of a list.
    pub fn items(&self) -> Result<Vec<Self>, Invalid> {
        let Node::List(values) = self.node else {
            return Err(self.wrong("a list"));
        };
        let item = |(index, node)| Self {
            node,
            path: format!("{}[{index}]", self.path),
            style: self.style,
        };
        Ok(values.iter().enumerate().map(item).collect())
    }

    /// A string of no more characters than this, and of at least one.
    pub fn text(&self, longest: usize) -> Result<String, Invalid> {
        let text = match (self.node, self.style) {
            (Node::Text(text), _) => text.clone(),
            // CloudFormation makes strings of these.
            (Node::Bool(value), Style::CloudFormation) => value.to_string(),
            (Node::Number(number), Style::CloudFormation) if !number.is_f64() => number.to_string(),
            (Node::Bool(_) | Node::Number(_), _) => {
                return Err(self.fault(format!(
                    "must be a string, not {}: write it in quotes",
                    self.node.kind()
                )));
            }
            _ => return Err(self.wrong("a string")),
        };
        match text.chars().count() {
            0 => Err(self.fault("must not be empty")),
            long if long > longest => Err(self.fault(format!(
                "has {long} characters, of which FIS takes no more than {longest}"
            ))),
            _ => Ok(text),
        }
    }

    /// Such a string without spaces.
    pub fn word(&self, longest: usize) -> Result<String, Invalid> {
        let text = self.text(longest)?;
        match text.contains(char::is_whitespace) {
            true => Err(self.fault("FIS takes no spaces here")),
            false => Ok(text),
        }
    }

    /// A string that is of no meaning here, whoever computes it.
    pub fn any_text(&self, longest: usize) -> Result<(), Invalid> {
        match self.node.intrinsic() {
            Some(_) => Ok(()),
            None => self.text(longest).map(drop),
        }
    }

    /// Such a string that may be empty.
    pub fn free_text(&self, longest: usize) -> Result<(), Invalid> {
        match self.is_empty_text() {
            true => Ok(()),
            false => self.any_text(longest),
        }
    }

    pub fn is_empty_text(&self) -> bool {
        matches!(self.node, Node::Text(text) if text.is_empty())
    }
}

/// Checks a name that the user gives to something: the last part of a path.
pub fn check_name(name: &str, field: &Field<'_>) -> Result<(), Invalid> {
    const LONGEST: usize = 64;
    match name.chars().count() {
        0 => Err(field.fault("a name must not be empty")),
        long if long > LONGEST => Err(field.fault(format!(
            "the name has {long} characters, of which FIS takes no more than {LONGEST}"
        ))),
        _ if name.contains(char::is_whitespace) => {
            Err(field.fault("FIS takes no spaces in a name"))
        }
        _ => Ok(()),
    }
}

impl<'a> Fields<'a> {
    pub fn get(&self, name: &str) -> Option<&Field<'a>> {
        self.found.get(name)
    }

    pub fn required(&self, name: &str) -> Result<&Field<'a>, Invalid> {
        self.get(name).ok_or_else(|| {
            let name = self.of.style.spell(name);
            self.of.child(&name, self.of.node).fault("is required")
        })
    }

    /// The entries of a map that need not be there.
    pub fn entries(&self, name: &str) -> Result<Vec<(&'a str, Field<'a>)>, Invalid> {
        self.get(name).map_or(Ok(Vec::new()), Field::entries)
    }

    /// The members of a list that need not be there.
    pub fn items(&self, name: &str) -> Result<Vec<Field<'a>>, Invalid> {
        self.get(name).map_or(Ok(Vec::new()), Field::items)
    }
}
