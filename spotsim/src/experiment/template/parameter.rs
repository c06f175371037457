//! What CloudFormation computes of a template's parameters: as far as their defaults tell.

use std::collections::BTreeMap;

use super::tree::Node;

/// The defaults of the parameters of a CloudFormation template, by their names.
pub struct Defaults<'a>(BTreeMap<&'a str, String>);

impl<'a> Defaults<'a> {
    /// Those that are texts or numbers. That of a parameter of another type may be something
    /// else's name, or a list.
    pub fn of(root: &'a Node) -> Self {
        let Some(Node::Map(parameters)) = root.get("Parameters") else {
            return Self(BTreeMap::new());
        };
        let default = |(name, parameter): &'a (String, Node)| match parameter.get("Type") {
            Some(Node::Text(kind)) if kind == "String" || kind == "Number" => {
                Some((name.as_str(), scalar(parameter.get("Default")?)?))
            }
            _ => None,
        };
        Self(parameters.iter().filter_map(default).collect())
    }

    /// A value with texts in place of the functions that can be computed; those defaults that
    /// it took are `used`.
    pub fn fill(&self, node: &Node, used: &mut BTreeMap<String, String>) -> Node {
        if let Some((name, value)) = node.function() {
            return match self.compute(name, &self.fill(value, used), used) {
                Some(text) => Node::Text(text),
                None => node.clone(),
            };
        }
        match node {
            Node::List(values) => {
                let values = values.iter().map(|value| self.fill(value, used));
                Node::List(values.collect())
            }
            Node::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (key.clone(), self.fill(value, used)));
                Node::Map(entries.collect())
            }
            _ => node.clone(),
        }
    }

    /// What a function comes to, of arguments that are filled.
    fn compute(
        &self,
        name: &str,
        value: &Node,
        used: &mut BTreeMap<String, String>,
    ) -> Option<String> {
        let none = Node::Map(Vec::new());
        match (name, value) {
            ("Ref", Node::Text(name)) => self.take(name, used),
            ("Fn::Join", Node::List(arguments)) => {
                let [Node::Text(between), Node::List(values)] = &arguments[..] else {
                    return None;
                };
                let values: Option<Vec<_>> = values.iter().map(scalar).collect();
                Some(values?.join(between))
            }
            ("Fn::Sub", Node::Text(text)) => self.substitute(text, &none, used),
            ("Fn::Sub", Node::List(arguments)) => match &arguments[..] {
                [Node::Text(text), own] => self.substitute(text, own, used),
                _ => None,
            },
            _ => None,
        }
    }

    /// A text with the values of `${Name}`; `${!Name}` is a literal `${Name}`.
    fn substitute(
        &self,
        text: &str,
        own: &Node,
        used: &mut BTreeMap<String, String>,
    ) -> Option<String> {
        let mut parts = text.split("${");
        let mut whole = parts.next()?.to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}')?;
            match (name.strip_prefix('!'), own.get(name)) {
                (Some(literal), _) => whole += &format!("${{{literal}}}"),
                (None, Some(value)) => whole += &scalar(value)?,
                (None, None) => whole += &self.take(name, used)?,
            }
            whole += rest;
        }
        Some(whole)
    }

    fn take(&self, name: &str, used: &mut BTreeMap<String, String>) -> Option<String> {
        let Self(defaults) = self;
        let default = defaults.get(name)?;
        used.insert(name.to_owned(), default.clone());
        Some(default.clone())
    }
}

/// As CloudFormation makes a string of it.
fn scalar(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(text.clone()),
        Node::Bool(value) => Some(value.to_string()),
        Node::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Format;

    /// What a value of YAML comes to, and what was used.
    fn filled(value: &str) -> (Node, Vec<String>) {
        let text = format!(
            "Parameters:\n  \
               Count: {{Type: Number, Default: 3}}\n  \
               Group: {{Type: String, Default: web}}\n  \
               Bare: {{Type: String}}\n  \
               Image: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /name}}\n\
             it: {value}\n"
        );
        let root = Node::parse(&text, Format::Yaml).unwrap();
        let mut used = BTreeMap::new();
        let filled = Defaults::of(&root).fill(root.get("it").unwrap(), &mut used);
        (filled, used.into_keys().collect())
    }

    #[test]
    fn defaults_are_joined_and_substituted() {
        for (value, expected, names) in [
            ("!Ref Count", "3", &["Count"][..]),
            ("{Ref: Group}", "web", &["Group"]),
            (
                "!Join ['', ['COUNT(', !Ref Count, ')']]",
                "COUNT(3)",
                &["Count"],
            ),
            (
                "{'Fn::Join': ['-', [a, 1, {Ref: Group}]]}",
                "a-1-web",
                &["Group"],
            ),
            ("!Sub 'PT${Count}M'", "PT3M", &["Count"]),
            ("!Sub '${Group}-${!Group}'", "web-${Group}", &["Group"]),
            (
                "!Sub ['${a}${Count}', {a: !Ref Group}]",
                "web3",
                &["Count", "Group"],
            ),
            ("plain", "plain", &[]),
        ] {
            let (node, used) = filled(value);
            assert_eq!(node, Node::Text(expected.to_owned()), "{value}");
            assert_eq!(used, names, "{value}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_as_it_is() {
        for value in [
            "!Ref Bare",
            "!Ref Image",
            "!Ref AWS::Region",
            "!GetAtt Role.Arn",
            "!Join ['', [!Ref Bare, a]]",
            "!Sub '${AWS::Region}'",
            "!Sub '${Group'",
            "!Select [0, [a]]",
        ] {
            let root = Node::parse(&format!("it: {value}"), Format::Yaml).unwrap();
            assert_eq!(filled(value).0, *root.get("it").unwrap(), "{value}");
        }
    }
}
