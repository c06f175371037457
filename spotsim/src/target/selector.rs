//! Label selectors as Kubernetes has them: `app=web,tier notin (db,cache),!canary`.
//!
//! Syntax, rules for keys and values, and what matches are those of apimachinery
//! ([`labels.Parse`][1], [labels and selectors][2]), so that a selector which `kubectl` takes
//! means the same here.
//!
//! [1]: https://pkg.go.dev/k8s.io/apimachinery/pkg/labels#Parse
//! [2]: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    iter::Peekable,
    str::{CharIndices, FromStr},
};

use serde::{Deserialize, Serialize};

/// The longest selector in bytes. Two dozen requirements of the longest keys and values fit,
/// and nobody who may send one can make it costly.
const LONGEST: usize = 8_192;

/// The longest name and value ([syntax and character set][1]).
///
/// [1]: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
const LONGEST_NAME: usize = 63;

/// The longest prefix of a key, and the longest label in it (RFC 1123).
const LONGEST_PREFIX: usize = 253;

/// Which labels a pod must have. The empty one is content with any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// All of them must be met. Sorted by key.
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

/// What is asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    Equals(String),
    NotEquals(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    /// Whether it is met by these labels. What must *not* be equal, or not in a set, may be
    /// absent; what must be greater or less is not met by a label that is no number.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let Self { requirements } = self;
        requirements.iter().all(|requirement| {
            let Requirement { key, test } = requirement;
            test.is_met(labels.get(key).map(String::as_str))
        })
    }
}

impl Test {
    fn is_met(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Equals(wanted) => value == Some(wanted),
            Self::NotEquals(unwanted) => value != Some(unwanted),
            Self::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Self::NotIn(unwanted) => !value.is_some_and(|value| unwanted.contains(value)),
            Self::Greater(than) => number().is_some_and(|number| number > *than),
            Self::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

impl FromStr for Selector {
    /// What is wrong, and at which column, counted in characters from 1.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "a selector of {} bytes is too long; {LONGEST} are the most",
                text.len()
            ));
        }
        let mut requirements = Parser::new(text).selector()?;
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Self { requirements })
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requirements } = self;
        for (index, requirement) in requirements.iter().enumerate() {
            let between = if index == 0 { "" } else { "," };
            write!(f, "{between}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, test } = self;
        let list = |values: &BTreeSet<String>| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            values.join(",")
        };
        match test {
            Test::Exists => write!(f, "{key}"),
            Test::Absent => write!(f, "!{key}"),
            Test::Equals(value) => write!(f, "{key}={value}"),
            Test::NotEquals(value) => write!(f, "{key}!={value}"),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Greater(than) => write!(f, "{key}>{than}"),
            Test::Less(than) => write!(f, "{key}<{than}"),
        }
    }
}

/// A piece of a selector, and the column at which it begins.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    piece: Piece<'a>,
    column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// A key, a value, or an operator: `in` and `notin` are words that may be all three.
    Word(&'a str),
    /// One of [`SYMBOLS`].
    Symbol(&'static str),
    End,
}

/// The longer ones first: they are what is meant.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

impl fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // On one line, whatever is in it.
            Self::Word(word) => write!(f, "`{}`", word.escape_debug()),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

impl Token<'_> {
    /// The error that something else was expected here.
    fn unexpected<T>(self, expected: &str) -> Result<T, String> {
        let Self { piece, column } = self;
        Err(format!(
            "expected {expected}, not {piece}, at column {column}"
        ))
    }
}

/// Cuts a selector into pieces.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
    column: usize,
}

impl<'a> Pieces<'a> {
    fn step(&mut self) {
        self.letters.next();
        self.column += 1;
    }

    /// Where in the text the next letter is.
    fn at(&mut self) -> usize {
        let Self { text, letters, .. } = self;
        letters.peek().map_or(text.len(), |(at, _)| *at)
    }

    fn next(&mut self) -> Token<'a> {
        while self
            .letters
            .peek()
            .is_some_and(|(_, letter)| is_white(*letter))
        {
            self.step();
        }
        let (start, column) = (self.at(), self.column);
        let rest = &self.text[start..];
        let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
        let piece = if rest.is_empty() {
            Piece::End
        } else if let Some(symbol) = symbol {
            symbol.chars().for_each(|_| self.step());
            Piece::Symbol(symbol)
        } else {
            let is_word = |letter: char| !is_white(letter) && !"=!(),><".contains(letter);
            while self
                .letters
                .peek()
                .is_some_and(|(_, letter)| is_word(*letter))
            {
                self.step();
            }
            Piece::Word(&self.text[start..self.at()])
        };
        Token { piece, column }
    }
}

fn is_white(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

/// Reads requirements, with one token in sight.
struct Parser<'a> {
    pieces: Pieces<'a>,
    next: Token<'a>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let letters = text.char_indices().peekable();
        let mut pieces = Pieces {
            text,
            letters,
            column: 1,
        };
        let next = pieces.next();
        Self { pieces, next }
    }

    fn take(&mut self) -> Token<'a> {
        let following = self.pieces.next();
        std::mem::replace(&mut self.next, following)
    }

    /// Whether this comes next; if it does, it is taken.
    fn takes(&mut self, symbol: &'static str) -> bool {
        let is_next = self.next.piece == Piece::Symbol(symbol);
        if is_next {
            self.take();
        }
        is_next
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        if self.next.piece == Piece::End {
            return Ok(requirements);
        }
        loop {
            requirements.push(self.requirement()?);
            let token = self.take();
            match token.piece {
                Piece::End => return Ok(requirements),
                Piece::Symbol(",") => {}
                _ => return token.unexpected("`,` or the end"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.takes("!");
        let token = self.take();
        let Piece::Word(key) = token.piece else {
            return token.unexpected(if negated {
                "a key after `!`"
            } else {
                "a key or `!`"
            });
        };
        if let Some(fault) = key_fault(key) {
            let Token { piece, column } = token;
            return Err(format!("the key {piece} at column {column} {fault}"));
        }
        let is_alone = matches!(self.next.piece, Piece::End | Piece::Symbol(","));
        let test = match (negated, is_alone) {
            (true, _) => Test::Absent,
            (false, true) => Test::Exists,
            (false, false) => self.test()?,
        };
        let key = key.to_owned();
        Ok(Requirement { key, test })
    }

    /// An operator and what follows it.
    fn test(&mut self) -> Result<Test, String> {
        let token = self.take();
        Ok(match token.piece {
            Piece::Word("in") => Test::In(self.values("in")?),
            Piece::Word("notin") => Test::NotIn(self.values("notin")?),
            Piece::Symbol("=" | "==") => Test::Equals(self.value()?),
            Piece::Symbol("!=") => Test::NotEquals(self.value()?),
            Piece::Symbol(">") => Test::Greater(self.number(">")?),
            Piece::Symbol("<") => Test::Less(self.number("<")?),
            _ => {
                return token
                    .unexpected("`=`, `==`, `!=`, `in`, `notin`, `>`, `<`, `,` or the end");
            }
        })
    }

    /// The one value of an exact match; it may be empty.
    fn value(&mut self) -> Result<String, String> {
        match self.next.piece {
            Piece::End | Piece::Symbol(",") => Ok(String::new()),
            Piece::Word(_) => self.word(),
            Piece::Symbol(_) => self.next.unexpected("a value"),
        }
    }

    fn number(&mut self, operator: &str) -> Result<i64, String> {
        let token = self.next;
        match token.piece {
            Piece::Word(word) => match word.parse() {
                // A sign is no letter that a value may begin with.
                Ok(number) => self.word().map(|_| number),
                Err(_) => token.unexpected(&format!("an integer of 64 bits after `{operator}`")),
            },
            _ => token.unexpected(&format!("an integer after `{operator}`")),
        }
    }

    /// The values between parentheses. Each may be empty, and so may be what is between them:
    /// that is one empty value.
    fn values(&mut self, operator: &str) -> Result<BTreeSet<String>, String> {
        if !self.takes("(") {
            return self.next.unexpected(&format!("`(` after `{operator}`"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(match self.next.piece {
                Piece::Word(_) => self.word()?,
                _ => String::new(),
            });
            if self.takes(")") {
                return Ok(values);
            }
            if !self.takes(",") {
                return self.next.unexpected("`,` or `)`");
            }
        }
    }

    /// A value that is not empty.
    fn word(&mut self) -> Result<String, String> {
        let Token { piece, column } = self.take();
        let Piece::Word(value) = piece else {
            return Token { piece, column }.unexpected("a value");
        };
        match name_fault(value) {
            Some(fault) => Err(format!("the value {piece} at column {column} {fault}")),
            None => Ok(value.to_owned()),
        }
    }
}

/// Why a key is none: `name` or `prefix/name`.
fn key_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return Some("has more than one `/`".to_owned());
    }
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Some(format!(
            "has a prefix that is no domain of lower case letters, digits, `-` and `.`, \
             {LONGEST_PREFIX} at most"
        ));
    }
    if name.is_empty() {
        return Some("has no name after its `/`".to_owned());
    }
    name_fault(name)
}

/// Why a word is neither the name of a key nor a value.
fn name_fault(name: &str) -> Option<String> {
    let is_middle = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    let ends = [name.bytes().next(), name.bytes().next_back()];
    if name.len() > LONGEST_NAME {
        Some(format!(
            "is {} long; {LONGEST_NAME} are the most",
            name.len()
        ))
    } else if !name.bytes().all(is_middle) {
        Some("may have letters, digits, `-`, `_` and `.` only".to_owned())
    } else if !ends.iter().flatten().all(u8::is_ascii_alphanumeric) {
        Some("must begin and end with a letter or a digit".to_owned())
    } else {
        None
    }
}

/// A DNS subdomain (RFC 1123) in lower case.
fn is_subdomain(text: &str) -> bool {
    let is_end = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().next_back()];
        ends.iter().all(|end| end.is_some_and(is_end))
            && label.bytes().all(|letter| is_end(letter) || letter == b'-')
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample::select};

    use super::*;

    fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = list
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect()
    }

    fn selector(text: &str) -> Selector {
        text.parse()
            .unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// What `labels.Parse` takes, and how it is written back.
    #[test]
    fn what_is_read() {
        for (text, written) in [
            ("", ""),
            (" \t\r\n", ""),
            ("a", "a"),
            ("!a", "!a"),
            (" ! a ", "!a"),
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            ("a!=b", "a!=b"),
            (" a = b , c != d ", "a=b,c!=d"),
            ("a=,b", "a=,b"),
            ("a=", "a="),
            ("a!=", "a!="),
            ("x in (a,b)", "x in (a,b)"),
            ("x in(b,a,b)", "x in (a,b)"),
            ("x notin ( a , b )", "x notin (a,b)"),
            ("x in ()", "x in ()"),
            ("x in (,)", "x in ()"),
            ("x in (,a)", "x in (,a)"),
            ("x in (a,)", "x in (,a)"),
            (
                "x in (foo,,baz),y,z notin ()",
                "x in (,baz,foo),y,z notin ()",
            ),
            ("a>5", "a>5"),
            ("a < 007", "a<7"),
            ("a>1,a<5", "a>1,a<5"),
            // Words that are operators elsewhere.
            ("in", "in"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("!notin", "!notin"),
            ("notin=in", "notin=in"),
            (
                "example.com/App.kubernetes-io_x=A.b-c_9",
                "example.com/App.kubernetes-io_x=A.b-c_9",
            ),
            // By key.
            ("z,a=1,m in (x)", "a=1,m in (x),z"),
        ] {
            assert_eq!(selector(text).to_string(), written, "{text:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let operators = "expected `=`, `==`, `!=`, `in`, `notin`, `>`, `<`, `,` or the end";
        for (text, fault) in [
            (
                ",",
                "expected a key or `!`, not `,`, at column 1".to_owned(),
            ),
            (
                "a,",
                "expected a key or `!`, not the end, at column 3".into(),
            ),
            ("a,,b", "expected a key or `!`, not `,`, at column 3".into()),
            (
                "!",
                "expected a key after `!`, not the end, at column 2".into(),
            ),
            (
                "!!a",
                "expected a key after `!`, not `!`, at column 2".into(),
            ),
            ("=b", "expected a key or `!`, not `=`, at column 1".into()),
            ("a b", format!("{operators}, not `b`, at column 3")),
            ("a!b", format!("{operators}, not `!`, at column 2")),
            ("a IN (b)", format!("{operators}, not `IN`, at column 3")),
            (
                "!a=b",
                "expected `,` or the end, not `=`, at column 3".into(),
            ),
            (
                "a=b c",
                "expected `,` or the end, not `c`, at column 5".into(),
            ),
            ("a===b", "expected a value, not `=`, at column 4".into()),
            (
                "a>=5",
                "expected an integer after `>`, not `=`, at column 3".into(),
            ),
            (
                "app in web",
                "expected `(` after `in`, not `web`, at column 8".into(),
            ),
            (
                "a notin",
                "expected `(` after `notin`, not the end, at column 8".into(),
            ),
            (
                "a in (b",
                "expected `,` or `)`, not the end, at column 8".into(),
            ),
            (
                "a in (b,",
                "expected `,` or `)`, not the end, at column 9".into(),
            ),
            (
                "a in (b c)",
                "expected `,` or `)`, not `c`, at column 9".into(),
            ),
            (
                "a in (b=c)",
                "expected `,` or `)`, not `=`, at column 8".into(),
            ),
            (
                "a in (b))",
                "expected `,` or the end, not `)`, at column 9".into(),
            ),
            (
                "a>",
                "expected an integer after `>`, not the end, at column 3".into(),
            ),
            (
                "a<b",
                "expected an integer of 64 bits after `<`, not `b`, at column 3".into(),
            ),
            (
                "a>9223372036854775808",
                "expected an integer of 64 bits after `>`, not `9223372036854775808`, at column 3"
                    .into(),
            ),
            (
                "a>-5",
                "the value `-5` at column 3 must begin and end with a letter or a digit".into(),
            ),
            (
                "-a=b",
                "the key `-a` at column 1 must begin and end with a letter or a digit".into(),
            ),
            (
                "a=b_",
                "the value `b_` at column 3 must begin and end with a letter or a digit".into(),
            ),
            (
                "a=é",
                "the value `é` at column 3 may have letters, digits, `-`, `_` and `.` only".into(),
            ),
            (
                "a=x/y",
                "the value `x/y` at column 3 may have letters, digits, `-`, `_` and `.` only"
                    .into(),
            ),
            (
                "é=b",
                "the key `é` at column 1 may have letters, digits, `-`, `_` and `.` only".into(),
            ),
            (
                "é é",
                "the key `é` at column 1 may have letters, digits, `-`, `_` and `.` only".into(),
            ),
            (
                "a in (é, b",
                "the value `é` at column 7 may have letters, digits, `-`, `_` and `.` only".into(),
            ),
            (
                "a/b/c",
                "the key `a/b/c` at column 1 has more than one `/`".into(),
            ),
            (
                "a/",
                "the key `a/` at column 1 has no name after its `/`".into(),
            ),
            (
                "a\0b",
                "the key `a\\0b` at column 1 may have letters, digits, `-`, `_` and `.` only"
                    .into(),
            ),
        ] {
            assert_eq!(text.parse::<Selector>(), Err(fault), "{text:?}");
        }
        for prefix in ["", "A", "a..b", "-a", "a-", "a_b", ".a", "a."] {
            let error = format!("{prefix}/name").parse::<Selector>().unwrap_err();
            assert!(
                error.contains("has a prefix that is no domain"),
                "{prefix:?}: {error}"
            );
        }
    }

    /// Columns are what a reader counts, not bytes.
    #[test]
    fn columns_are_letters() {
        let error = "a=b,\u{e9}".parse::<Selector>().unwrap_err();
        assert!(error.contains("at column 5 "), "{error}");
        let error = "a \u{e9}\u{e9} b".parse::<Selector>().unwrap_err();
        assert!(error.ends_with("not `éé`, at column 3"), "{error}");
        let error = "a in (b \u{e9}".parse::<Selector>().unwrap_err();
        assert!(error.ends_with("not `é`, at column 9"), "{error}");
    }

    #[test]
    fn lengths_are_limited() {
        let name = "n".repeat(LONGEST_NAME);
        let prefix = format!("{}.de", "p".repeat(LONGEST_PREFIX - 3));
        selector(&format!("{prefix}/{name}={name},{name} in ({name})"));
        for text in [
            format!("{name}n"),
            format!("a={name}n"),
            format!("a in (b,{name}n)"),
            format!("p{prefix}/{name}"),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.contains("most"), "{error}");
        }
        let longest = vec!["a"; LONGEST / 2].join(",") + "a";
        assert_eq!(longest.len(), LONGEST);
        selector(&longest);
        let error = (longest + "a").parse::<Selector>().unwrap_err();
        let expected = "a selector of 8193 bytes is too long; 8192 are the most";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_matches() {
        let pod = labels(&[
            ("app", "web"),
            ("tier", "front"),
            ("rank", "7"),
            ("empty", ""),
        ]);
        for text in [
            "",
            "app",
            "!db",
            "app=web",
            "app==web",
            "app=web,tier!=db",
            "other!=db",
            "other!=",
            "app in (web,api)",
            "other notin (a,b)",
            "tier notin (db,cache)",
            "rank>6",
            "rank<8",
            "rank>6,rank<8",
            "empty=",
            "empty in ()",
            "empty in (,x)",
            "empty!=x",
        ] {
            assert!(selector(text).matches(&pod), "{text}");
        }
        for text in [
            "!app",
            "db",
            "app=api",
            "app=",
            "App=web",
            "app!=web",
            "app in (api)",
            "app in ()",
            "other in (a)",
            "other in ()",
            "other=",
            "tier notin (front,db)",
            "empty notin ()",
            "empty!=",
            "rank>7",
            "rank<7",
            "app>1",
            "app<1",
            "other<1",
            "app=web,tier=db",
            "app,!tier",
        ] {
            assert!(!selector(text).matches(&pod), "{text}");
        }
        assert!(selector("a>0").matches(&labels(&[("a", "+5")])));
        assert!(selector("a<0").matches(&labels(&[("a", "-5")])));
        assert!(!selector("a>0").matches(&labels(&[("a", "5.0")])));
    }

    #[test]
    fn it_travels_as_a_string() {
        let text = r#""a in (x,y),b!=1""#;
        let read: Selector = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let error = serde_json::from_str::<Selector>(r#""a in b""#).unwrap_err();
        assert!(error.to_string().contains("expected `(`"), "{error}");
    }

    fn names() -> impl Strategy<Value = String> {
        "[A-Za-z0-9]([A-Za-z0-9_.-]{0,5}[A-Za-z0-9])?"
    }

    fn tests() -> impl Strategy<Value = Test> {
        let values = || prop_oneof![Just(String::new()), names()];
        let sets = || collection::btree_set(values(), 1..4);
        prop_oneof![
            Just(Test::Exists),
            Just(Test::Absent),
            values().prop_map(Test::Equals),
            values().prop_map(Test::NotEquals),
            sets().prop_map(Test::In),
            sets().prop_map(Test::NotIn),
            (0..=i64::MAX).prop_map(Test::Greater),
            (0..=i64::MAX).prop_map(Test::Less),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            mut requirements in collection::vec(
                (select(vec!["", "a/", "k8s.example.com/"]), names(), tests()).prop_map(
                    |(prefix, name, test)| Requirement { key: format!("{prefix}{name}"), test },
                ),
                0..5,
            ),
        ) {
            requirements.sort_by(|one, other| one.key.cmp(&other.key));
            let selector = Selector { requirements };
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }

        /// Whatever is written, the answer is one line; what is taken is written back so that
        /// it is taken again.
        #[test]
        fn anything_may_be_written(text in "([ab/é.-]|in|notin|[ =!(),><\n]|\\PC){0,12}") {
            match text.parse::<Selector>() {
                Ok(selector) => prop_assert_eq!(selector.to_string().parse(), Ok(selector)),
                Err(error) => prop_assert!(!error.contains('\n'), "{error}"),
            }
        }
    }
}
